// What data look like by their first bytes. Knows the magic numbers of what the modalities read and of other
// everyday files, so that messages can say what was found in place of what was wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/data/files.h"
#include "longstride/data/items.h"

namespace longstride {
struct Modality;
}

namespace longstride::data {

struct Look {
  enum class Sort { read, not_read, packed, other };  // the first two of a kind
  std::string_view name;                              // "a PNG picture"
  Sort sort = Sort::other;
  const Modality* kind = nullptr;
};

// How many first bytes are looked at.
constexpr size_t kLookBytes = 512;

// Null if the bytes look like nothing in particular, as text does.
const Look* look_of(std::span<const uint8_t> head);

// True for pictures and sounds, whether longstride reads them or not.
bool begins_like_media(std::span<const uint8_t> head);

// True if most of the records whose labels are among the bytes have one of CIFAR-10.
bool begins_like_cifar(std::span<const uint8_t> head);
constexpr size_t kCifarRecordBytes = 3073;

// "; it looks like a WAV sound, which data.kind = "audio" reads"; empty if it looks like nothing in
// particular.
std::string look_hint(Item& item);
std::string look_hint(std::span<const uint8_t> head);

// True if the item looks like something other than a sound. If it is named like a sound, only a picture
// counts, because a recorded broadcast may begin with any bytes.
bool is_no_sound(Item& item, bool named_like_sound);

// "image" or "audio" if most of `files` look like pictures or sounds that are read here, else "text". Looks
// at the same files as looks_unlike_text. Throws Error as visit_items does.
std::string kind_by_looks(const std::vector<SourceFile>& files);

// One line if most of `files` look like something other than text: what they look like, and what would read
// them. Looks at some files and at the first members of archives. Empty if most look like text. Throws Error
// as visit_items does.
std::string looks_unlike_text(const std::string& path, const std::vector<SourceFile>& files);

}  // namespace longstride::data
