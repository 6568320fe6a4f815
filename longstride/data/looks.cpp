#include "longstride/data/looks.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "longstride/base/check.h"
#include "longstride/data/modalities/audio.h"
#include "longstride/data/modalities/image.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/data/modalities/text.h"

namespace longstride::data {

namespace {

using Sort = Look::Sort;
using std::string_view_literals::operator""sv;

constexpr std::array kPacked{
    Magic{"7z\xBC\xAF\x27\x1C"sv, "a 7z archive"},
    Magic{"Rar!\x1A\7"sv, "an RAR archive"},
    Magic{"LZIP\1"sv, "a lzip file"},
    Magic{"\x1F\x9D"sv, "a file of the program compress"},
    Magic{"\x5D\0\0"sv, "an LZMA file"},
    Magic{"\x89LZO\0\r\n\x1A\n"sv, "a lzop file"},
    Magic{"\xC7\x71"sv, "a cpio archive"},
    Magic{"!<arch>\n"sv, "an ar archive"},
    Magic{"MSCF\0\0\0\0"sv, "a cabinet"},
    Magic{"PK\3\4"sv, "a zip archive"},
    Magic{"\xFD"
          "7zXZ\0"sv,
          "an xz file"},
    Magic{"\x1F\x8B\x08"sv, "a gzip file"},
    Magic{"\x28\xB5\x2F\xFD"sv, "a zstd file"},
    Magic{"BZh?1AY&SY"sv, "a bzip2 file"},
};

constexpr std::array kOthers{
    Magic{"MThd\0\0\0\6"sv, "a MIDI file"},
    Magic{"\x7F"
          "ELF"sv,
          "an ELF program or library"},
    Magic{"MZ?\0"sv, "a program of Windows"},
    Magic{"MZ\x90\0"sv, "a program of Windows"},
    Magic{"\xCF\xFA\xED\xFE"sv, "a program or library (Mach-O)"},
    Magic{"\xCE\xFA\xED\xFE"sv, "a program or library (Mach-O)"},
    Magic{"\xCA\xFE\xBA\xBE"sv, "a Java class or Mach-O program"},
    Magic{"\0asm"sv, "a WebAssembly module"},
    Magic{"SQLite format 3\0"sv, "an SQLite database"},
    Magic{"PAR1"sv, "a Parquet table"},
    Magic{"ARROW1\0"sv, "an Arrow table"},
    Magic{"\x89HDF\r\n\x1A\n"sv, "an HDF5 file"},
    Magic{"GGUF"sv, "a GGUF file of weights"},
    Magic{"\x80\2"sv, "a Python pickle"},
    Magic{"\x80\3"sv, "a Python pickle"},
    Magic{"\x80\4\x95"sv, "a Python pickle"},
    Magic{"\x80\5\x95"sv, "a Python pickle"},
    Magic{"Salted__"sv, "an encrypted file (OpenSSL)"},
    Magic{"age-encryption.org/"sv, "an encrypted file (age)"},
    Magic{"%PDF-"sv, "a PDF document"},
    Magic{"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, "a document of an old Microsoft Office"},
    Magic{"RIFF????AVI "sv, "an AVI film"},
    Magic{"\x1A\x45\xDF\xA3"sv, "a Matroska or WebM film"},
    Magic{"\0\0\0?ftyp"sv, "an MPEG-4 film"},
    Magic{"FLV\1"sv, "a Flash film"},
    Magic{"\0\0\1\xBA"sv, "an MPEG film"},
    Magic{"wOFF\0"sv, "a font"},
    Magic{"wOF2\0"sv, "a font"},
    Magic{"OTTO\0"sv, "a font"},
    Magic{"\0\1\0\0\0"sv, "a font"},
};

// Looks that need more than a magic number.
const Look kSafetensors{"a safetensors file of weights", Sort::other, nullptr};
const Look kMpegAudio{"an MP3 sound", Sort::read, &kAudio};
const Look kCifar{"a CIFAR-10 binary batch", Sort::read, &kImage};
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

struct MagicLook {
  std::string_view magic;
  Look look;
};

// The first one that fits counts.
const std::vector<MagicLook>& magic_looks() {
  static const std::vector<MagicLook> looks = [] {
    std::vector<MagicLook> all;
    const auto add = [&](std::span<const Magic> magics, Sort sort, const Modality* kind) {
      for (const Magic& magic : magics) all.push_back({magic.bytes, {magic.name, sort, kind}});
    };
    for (const Modality* kind : modalities()) add(kind->looks, Sort::read, kind);
    for (const Modality* kind : modalities()) add(kind->other_looks, Sort::not_read, kind);
    add(kPacked, Sort::packed, nullptr);
    add(kOthers, Sort::other, nullptr);
    return all;
  }();
  return looks;
}

const Look* look_of_item(Item& item) {
  if (const Look* look = look_of(item.peek(kLookBytes))) return look;
  if (item.extension() == "bin" && begins_like_cifar(item.peek(kCifarRecordsSeen * kCifarRecordBytes)))
    return &kCifar;
  return nullptr;
}

std::string hint_of(const Look* look) {
  if (look == nullptr) return "";
  return fmt::format(
      "; it looks like {}{}", look->name,
      look->sort == Sort::read ? fmt::format(", which data.kind = \"{}\" reads", look->kind->name) : "");
}

// What could read such files.
std::string advice(const Look& look) {
  switch (look.sort) {
    case Sort::read:
      return fmt::format("data.kind = \"{}\" reads {}", look.kind->name, look.kind->reads);
    case Sort::not_read:
      return fmt::format("longstride does not decode them; as {} data.kind = \"{}\" would read them",
                         look.kind->formats, look.kind->name);
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

std::pair<Sort, const Modality*> sort_of(const Look& look) { return {look.sort, look.kind}; }

// The place of a look among all.
size_t rank_of(const Look* look) {
  const std::vector<MagicLook>& all = magic_looks();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const MagicLook& m) { return &m.look == look; });
  const size_t behind = look == &kSafetensors ? 0 : look == &kMpegAudio ? 1 : 2;
  return static_cast<size_t>(found - all.begin()) + (found == all.end() ? behind : 0);
}

// Looks at some of the files, and at the first members of archives.
Found look_at(const std::vector<SourceFile>& files) {
  constexpr size_t kMostFiles = 16;
  std::vector<SourceFile> some;
  const size_t count = std::min(kMostFiles, files.size());
  for (size_t i = 0; i < count; ++i) some.push_back(files[i * files.size() / count]);
  std::map<std::pair<size_t, const Look*>, int64_t> times;  // in the order of the tables
  std::map<std::pair<Sort, const Modality*>, int64_t> of_sort;
  Found found;
  peek_items(some, [&](Item& item) {
    ++found.items;
    if (const Look* look = look_of_item(item)) ++times[{rank_of(look), look}], ++of_sort[sort_of(*look)];
  });
  int64_t most = 0;
  for (const auto& [look, count_of_look] : times)
    if (count_of_look > most) most = count_of_look, found.most = look.second;
  if (found.most != nullptr && 2 * of_sort[sort_of(*found.most)] <= found.items) found.most = nullptr;
  return found;
}

}  // namespace

const Look* look_of(std::span<const uint8_t> head) {
  for (const MagicLook& entry : magic_looks())
    if (fits(head, entry.magic)) return &entry.look;
  if (begins_like_safetensors(head)) return &kSafetensors;
  if (begins_like_mpeg_audio(head)) return &kMpegAudio;
  return nullptr;
}

bool begins_like_media(std::span<const uint8_t> head) {
  const Look* look = look_of(head);
  return look != nullptr && look->kind != nullptr;
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
  if (look == nullptr || look->kind == &kAudio) return false;
  return !named_like_sound || look->kind != nullptr;
}

std::string kind_by_looks(const std::vector<SourceFile>& files) {
  const Found found = look_at(files);
  const bool is_read = found.most != nullptr && found.most->sort == Sort::read;
  return std::string(is_read ? found.most->kind->name : kText.name);
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
