#include "longstride/data/looks.h"

#include <algorithm>
#include <array>
#include <map>

#include "longstride/base/check.h"

namespace longstride::data {

namespace {

using Sort = Look::Sort;
using std::string_view_literals::operator""sv;

struct MagicLook {
  std::string_view magic;  // '?' is any byte
  Look look;
};

// The first that fits counts.
constexpr std::array kLooks{
    MagicLook{"\x89PNG\r\n\x1A\n"sv, {"a PNG picture", Sort::picture}},
    MagicLook{"\xFF\xD8\xFF"sv, {"a JPEG picture", Sort::picture}},
    MagicLook{"\x93NUMPY"sv, {"a NumPy array", Sort::picture}},
    MagicLook{"\0\0\x08\3\0"sv, {"an IDX file of pictures", Sort::picture}},
    MagicLook{"\0\0\x08\4\0"sv, {"an IDX file of pictures", Sort::picture}},

    MagicLook{"RIFF????WAVE"sv, {"a WAV sound", Sort::sound}},
    MagicLook{"RIFX????WAVE"sv, {"a WAV sound", Sort::sound}},
    MagicLook{"RF64????WAVE"sv, {"a WAV sound", Sort::sound}},
    MagicLook{"riff\x2E\x91\xCF\x11"sv, {"a W64 sound", Sort::sound}},
    MagicLook{"fLaC"sv, {"a FLAC sound", Sort::sound}},
    MagicLook{"OggS"sv, {"an Ogg sound", Sort::sound}},
    MagicLook{"ID3"
              "\2"sv,
              {"an MP3 sound", Sort::sound}},
    MagicLook{"ID3"
              "\3"sv,
              {"an MP3 sound", Sort::sound}},
    MagicLook{"ID3"
              "\4"sv,
              {"an MP3 sound", Sort::sound}},
    MagicLook{"FORM????AIF"sv, {"an AIFF sound", Sort::sound}},
    MagicLook{"FORM????8SVX"sv, {"an SVX sound", Sort::sound}},
    MagicLook{"FORM????16SV"sv, {"an SVX sound", Sort::sound}},
    MagicLook{".snd\0"sv, {"an AU sound", Sort::sound}},
    MagicLook{"caff\0"sv, {"a CAF sound", Sort::sound}},
    MagicLook{"Creative Voice File\x1A"sv, {"a VOC sound", Sort::sound}},
    MagicLook{"NIST_1A\n"sv, {"a SPHERE sound", Sort::sound}},

    MagicLook{"RIFF????WEBP"sv, {"a WebP picture", Sort::other_picture}},
    MagicLook{"GIF87a"sv, {"a GIF picture", Sort::other_picture}},
    MagicLook{"GIF89a"sv, {"a GIF picture", Sort::other_picture}},
    MagicLook{"II*\0"sv, {"a TIFF picture", Sort::other_picture}},
    MagicLook{"MM\0*"sv, {"a TIFF picture", Sort::other_picture}},
    MagicLook{"BM????\0\0\0\0"sv, {"a BMP picture", Sort::other_picture}},
    MagicLook{"P5\n"sv, {"a PGM picture", Sort::other_picture}},
    MagicLook{"P6\n"sv, {"a PPM picture", Sort::other_picture}},
    MagicLook{"8BPS\0\1"sv, {"a Photoshop picture", Sort::other_picture}},
    MagicLook{"\0\0\1\0?\0"sv, {"an icon", Sort::other_picture}},
    MagicLook{"\0\0\0\x0CjP  "sv, {"a JPEG 2000 picture", Sort::other_picture}},
    MagicLook{"\0\0\0\x0CJXL "sv, {"a JPEG XL picture", Sort::other_picture}},
    MagicLook{"\0\0\0?ftyphei"sv, {"a HEIC picture", Sort::other_picture}},
    MagicLook{"\0\0\0?ftypmif1"sv, {"a HEIF picture", Sort::other_picture}},
    MagicLook{"\0\0\0?ftypavif"sv, {"an AVIF picture", Sort::other_picture}},

    MagicLook{"\0\0\0?ftypM4A"sv, {"an MPEG-4 sound", Sort::other_sound}},
    MagicLook{"\x30\x26\xB2\x75\x8E\x66\xCF\x11"sv, {"a Windows Media file", Sort::other_sound}},
    MagicLook{"\xFF\xF1"sv, {"an AAC sound", Sort::other_sound}},
    MagicLook{"\xFF\xF9"sv, {"an AAC sound", Sort::other_sound}},
    MagicLook{"wvpk"sv, {"a WavPack sound", Sort::other_sound}},
    MagicLook{"MAC \x96\x0F"sv, {"a Monkey's Audio sound", Sort::other_sound}},
    MagicLook{"#!AMR"sv, {"an AMR sound", Sort::other_sound}},
    MagicLook{"MThd\0\0\0\6"sv, {"a MIDI file", Sort::other}},

    MagicLook{"7z\xBC\xAF\x27\x1C"sv, {"a 7z archive", Sort::packed}},
    MagicLook{"Rar!\x1A\7"sv, {"an RAR archive", Sort::packed}},
    MagicLook{"LZIP\1"sv, {"a lzip file", Sort::packed}},
    MagicLook{"\x1F\x9D"sv, {"a file of the program compress", Sort::packed}},
    MagicLook{"\x5D\0\0"sv, {"an LZMA file", Sort::packed}},
    MagicLook{"\x89LZO\0\r\n\x1A\n"sv, {"a lzop file", Sort::packed}},
    MagicLook{"\xC7\x71"sv, {"a cpio archive", Sort::packed}},
    MagicLook{"!<arch>\n"sv, {"an ar archive", Sort::packed}},
    MagicLook{"MSCF\0\0\0\0"sv, {"a cabinet", Sort::packed}},
    MagicLook{"PK\3\4"sv, {"a zip archive", Sort::packed}},
    MagicLook{"\xFD"
              "7zXZ\0"sv,
              {"an xz file", Sort::packed}},
    MagicLook{"\x1F\x8B\x08"sv, {"a gzip file", Sort::packed}},
    MagicLook{"\x28\xB5\x2F\xFD"sv, {"a zstd file", Sort::packed}},
    MagicLook{"BZh?1AY&SY"sv, {"a bzip2 file", Sort::packed}},

    MagicLook{"\x7F"
              "ELF"sv,
              {"an ELF program or library", Sort::other}},
    MagicLook{"MZ?\0"sv, {"a program of Windows", Sort::other}},
    MagicLook{"MZ\x90\0"sv, {"a program of Windows", Sort::other}},
    MagicLook{"\xCF\xFA\xED\xFE"sv, {"a program or library (Mach-O)", Sort::other}},
    MagicLook{"\xCE\xFA\xED\xFE"sv, {"a program or library (Mach-O)", Sort::other}},
    MagicLook{"\xCA\xFE\xBA\xBE"sv, {"a Java class or Mach-O program", Sort::other}},
    MagicLook{"\0asm"sv, {"a WebAssembly module", Sort::other}},
    MagicLook{"SQLite format 3\0"sv, {"an SQLite database", Sort::other}},
    MagicLook{"PAR1"sv, {"a Parquet table", Sort::other}},
    MagicLook{"ARROW1\0"sv, {"an Arrow table", Sort::other}},
    MagicLook{"\x89HDF\r\n\x1A\n"sv, {"an HDF5 file", Sort::other}},
    MagicLook{"GGUF"sv, {"a GGUF file of weights", Sort::other}},
    MagicLook{"\x80\2"sv, {"a Python pickle", Sort::other}},
    MagicLook{"\x80\3"sv, {"a Python pickle", Sort::other}},
    MagicLook{"\x80\4\x95"sv, {"a Python pickle", Sort::other}},
    MagicLook{"\x80\5\x95"sv, {"a Python pickle", Sort::other}},
    MagicLook{"Salted__"sv, {"an encrypted file (OpenSSL)", Sort::other}},
    MagicLook{"age-encryption.org/"sv, {"an encrypted file (age)", Sort::other}},
    MagicLook{"%PDF-"sv, {"a PDF document", Sort::other}},
    MagicLook{"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, {"a document of an old Microsoft Office", Sort::other}},
    MagicLook{"RIFF????AVI "sv, {"an AVI film", Sort::other}},
    MagicLook{"\x1A\x45\xDF\xA3"sv, {"a Matroska or WebM film", Sort::other}},
    MagicLook{"\0\0\0?ftyp"sv, {"an MPEG-4 film", Sort::other}},
    MagicLook{"FLV\1"sv, {"a Flash film", Sort::other}},
    MagicLook{"\0\0\1\xBA"sv, {"an MPEG film", Sort::other}},
    MagicLook{"wOFF\0"sv, {"a font", Sort::other}},
    MagicLook{"wOF2\0"sv, {"a font", Sort::other}},
    MagicLook{"OTTO\0"sv, {"a font", Sort::other}},
    MagicLook{"\0\1\0\0\0"sv, {"a font", Sort::other}},
};

constexpr Look kSafetensors{"a safetensors file of weights", Sort::other};
constexpr Look kMpegAudio{"an MP3 sound", Sort::sound};
constexpr Look kCifar{"a CIFAR-10 binary batch", Sort::picture};
constexpr size_t kCifarRecordsSeen = 16;

bool fits(std::span<const uint8_t> head, std::string_view magic) {
  if (head.size() < magic.size()) return false;
  for (size_t i = 0; i < magic.size(); ++i)
    if (magic[i] != '?' && static_cast<uint8_t>(magic[i]) != head[i]) return false;
  return true;
}

// The length of a JSON object in 8 bytes, then the object.
bool begins_like_safetensors(std::span<const uint8_t> head) {
  return head.size() > 10 && head[8] == '{' && head[4] == 0 && head[5] == 0 && head[6] == 0 && head[7] == 0;
}

// A frame of layer II or III; layer I is left out, since UTF-16 text begins like it.
bool begins_like_mpeg_audio(std::span<const uint8_t> head) {
  if (head.size() < 4 || head[0] != 0xFF || (head[1] & 0xE0) != 0xE0) return false;
  const int version = head[1] >> 3 & 3, layer = head[1] >> 1 & 3, bitrate = head[2] >> 4,
            rate = head[2] >> 2 & 3;
  return version != 1 && (layer == 1 || layer == 2) && bitrate != 0 && bitrate != 15 && rate != 3;
}

const Look* look_of_item(Item& item) {
  if (const Look* look = look_of(item.peek(kLookBytes))) return look;
  if (item.extension() == "bin" && begins_like_cifar(item.peek(kCifarRecordsSeen * kCifarRecordBytes)))
    return &kCifar;
  return nullptr;
}

std::string hint_of(const Look* look) {
  if (look == nullptr) return "";
  const char* kind = look->sort == Sort::picture ? ", which data.kind = \"image\" reads"
                     : look->sort == Sort::sound ? ", which data.kind = \"audio\" reads"
                                                 : "";
  return fmt::format("; it looks like {}{}", look->name, kind);
}

// What would read such files.
std::string advice(const Look& look) {
  switch (look.sort) {
    case Sort::picture:
      return "data.kind = \"image\" reads pictures, and arrays of uint8 (data.image_height, data.image_width "
             "and data.image_channels are taken from the data if they are not set)";
    case Sort::sound:
      return "data.kind = \"audio\" reads sounds (data.sample_rate sets how finely)";
    case Sort::other_picture:
      return "longstride does not decode them; as PNG or JPEG data.kind = \"image\" would read them";
    case Sort::other_sound:
      return "longstride does not decode them; as WAV, FLAC or MP3 data.kind = \"audio\" would read them";
    case Sort::packed:
      return "longstride does not unpack them; unpack them first";
    case Sort::other:
      break;
  }
  return "no other data.kind reads them";
}

struct Found {
  const Look* most = nullptr;  // null unless more than half look like files of one sort
  int64_t items = 0;
};

// Some of the files, and the first members of archives.
Found look_at(const std::vector<SourceFile>& files) {
  constexpr size_t kMostFiles = 16;
  std::vector<SourceFile> some;
  const size_t count = std::min(kMostFiles, files.size());
  for (size_t i = 0; i < count; ++i) some.push_back(files[i * files.size() / count]);
  std::map<const Look*, int64_t> times;
  std::map<Sort, int64_t> of_sort;
  Found found;
  peek_items(some, [&](Item& item) {
    ++found.items;
    if (const Look* look = look_of_item(item)) ++times[look], ++of_sort[look->sort];
  });
  for (const auto& [look, count_of_look] : times)
    if (found.most == nullptr || count_of_look > times.at(found.most)) found.most = look;
  if (found.most != nullptr && 2 * of_sort[found.most->sort] <= found.items) found.most = nullptr;
  return found;
}

}  // namespace

const Look* look_of(std::span<const uint8_t> head) {
  for (const MagicLook& entry : kLooks)
    if (fits(head, entry.magic)) return &entry.look;
  if (begins_like_safetensors(head)) return &kSafetensors;
  if (begins_like_mpeg_audio(head)) return &kMpegAudio;
  return nullptr;
}

bool begins_like_media(std::span<const uint8_t> head) {
  const Look* look = look_of(head);
  return look != nullptr && (look->sort == Sort::picture || look->sort == Sort::sound ||
                             look->sort == Sort::other_picture || look->sort == Sort::other_sound);
}

bool begins_like_cifar(std::span<const uint8_t> head) {
  int64_t records = 0, labels = 0;
  for (size_t at = 0; at < head.size(); at += kCifarRecordBytes, ++records) labels += head[at] <= 9 ? 1 : 0;
  return records > 0 && 2 * labels >= records;
}

std::string look_hint(Item& item) { return hint_of(look_of_item(item)); }
std::string look_hint(std::span<const uint8_t> head) { return hint_of(look_of(head)); }

bool is_no_sound(Item& item, bool named_like_sound) {
  const Look* look = look_of_item(item);
  if (look == nullptr || look->sort == Sort::sound || look->sort == Sort::other_sound) return false;
  return !named_like_sound || look->sort == Sort::picture || look->sort == Sort::other_picture;
}

std::string kind_by_looks(const std::vector<SourceFile>& files) {
  const Found found = look_at(files);
  if (found.most == nullptr) return "text";
  return found.most->sort == Sort::picture ? "image" : found.most->sort == Sort::sound ? "audio" : "text";
}

std::string looks_unlike_text(const std::string& path, const std::vector<SourceFile>& files) {
  const Found found = look_at(files);
  if (found.most == nullptr) return "";
  const Look& look = *found.most;
  const bool alone = found.items == 1 && files.size() == 1;
  return fmt::format("{} like {}; with data.kind = \"text\" the bytes are learnt as they are; {}",
                     alone ? path + " looks" : "most files of " + path + " look", look.name, advice(look));
}

}  // namespace longstride::data
