#include "longstride/sample/generate.h"

#include <algorithm>
#include <cmath>

namespace longstride {

namespace {
// Windows hop by whole rows of the positions' grid. A single axis of rotary positions has no rows, so the
// pattern's are taken.
int64_t row_of(const ModelConfig& config) {
  return config.axes().size() == 1 ? config.pattern_row() : config.axes().back();
}
}  // namespace

int64_t Windows::first_drawn(int64_t position, int64_t prime) const {
  const int64_t begin = origin(position);
  return begin == 0 ? prime : std::max(prime, begin + context - hop);
}

Windows windows_of(const ModelConfig& config, double hop) {
  LONGSTRIDE_CHECK(hop > 0 && hop <= 1, "hop = {}, must be above 0 and at most 1 (the whole context)", hop);
  const int64_t context = config.context, axis = row_of(config);
  int64_t bytes = hop == 1 ? context : std::llround(hop * static_cast<double>(context));
  if (hop < 1 && bytes >= axis) bytes -= bytes % axis;
  return {context, std::clamp<int64_t>(bytes, 1, std::max<int64_t>(1, context - 1))};
}

void Sequence::check(int64_t index) const {
  sampler.check();
  LONGSTRIDE_CHECK(length >= 1, "sequence {} is to have {} bytes, must be at least 1", index, length);
  LONGSTRIDE_CHECK(prime >= 0 && prime <= known() && known() <= length,
                   "sequence {} has {} bytes, {} of them given, and is to have {}", index, known(), prime,
                   length);
}

Sequence sequence_after(std::vector<uint8_t> prime, int64_t length, const SamplerConfig& sampler,
                        uint32_t stream) {
  const auto given = static_cast<int64_t>(prime.size());
  return {std::move(prime), given, length, sampler, stream};
}

Generator::Generator(Decoder& decoder, std::vector<Sequence> sequences, const Windows& windows)
    : decoder_(decoder),
      windows_(windows),
      sequences_(std::move(sequences)),
      slots_(decoder.streams()),
      continuations_(decoder.streams()) {
  const int64_t context = decoder.config().context;
  LONGSTRIDE_CHECK(
      windows.context == context && windows.hop >= 1 && windows.hop <= std::max<int64_t>(1, context - 1),
      "windows of {} bytes that hop by {} for a context of {}", windows.context, windows.hop, context);
  for (size_t i = 0; i < sequences_.size(); ++i) {
    Sequence& sequence = sequences_[i];
    sequence.check(static_cast<int64_t>(i));
    LONGSTRIDE_CHECK(std::min(sequence.length, context) <= decoder.positions(),
                     "sequence {} has {} bytes, the decoder takes {} of a context of {}", i, sequence.length,
                     decoder.positions(), context);
    const int64_t at = sequence.known();
    replaying_.push_back(!sequence.finished() && windows.first_drawn(at, sequence.prime) < at);
    left_ += sequence.length - at;
  }
}

bool Generator::replaying() const {
  return std::any_of(slots_.begin(), slots_.end(),
                     [&](const Slot& slot) { return slot.sequence >= 0 && replaying_[slot.sequence]; });
}

bool Generator::needs_window(const Slot& slot) const {
  return slot.sequence >= 0 && slot.next == slot.origin + windows_.context;
}

// The bytes of a slot's window that come before its next position.
std::span<const uint8_t> Generator::given(const Slot& slot) const {
  return std::span(sequences_[slot.sequence].bytes).subspan(slot.origin, slot.next - slot.origin);
}

// Puts the next sequences on free slots, begins a new window where the last one is full, and brings the
// decoder to the beginning of each.
void Generator::fill_slots() {
  std::vector<int64_t> placed;
  for (int64_t s = 0; s < decoder_.streams(); ++s) {
    Slot& slot = slots_[s];
    int64_t position = slot.next;
    if (slot.sequence < 0) {
      while (pending_ < std::ssize(sequences_) && sequences_[pending_].finished()) ++pending_;
      if (pending_ == std::ssize(sequences_)) continue;
      slot.sequence = pending_++;
      position = sequences_[slot.sequence].known();
    } else if (!needs_window(slot)) {
      continue;
    }
    slot.origin = windows_.origin(position);
    slot.next = windows_.first_drawn(position, sequences_[slot.sequence].prime);
    const std::span<const uint8_t> bytes = given(slot);
    if (bytes.empty()) continue;
    const auto same = std::find_if(placed.begin(), placed.end(), [&](int64_t other) {
      return std::ranges::equal(given(slots_[other]), bytes);
    });
    if (same != placed.end())
      decoder_.copy_sequence(*same, s);
    else
      decoder_.prefill(s, bytes);
    placed.push_back(s);
  }
}

// Positions until the slot's sequence or window ends.
int64_t Generator::run_of(const Slot& slot) const {
  return std::min(sequences_[slot.sequence].length, slot.origin + windows_.context) - slot.next;
}

void Generator::take(Slot& slot, uint8_t byte) {
  Sequence& sequence = sequences_[slot.sequence];
  if (slot.next < sequence.known()) {
    if (sequence.bytes[slot.next] != byte)
      throw ReplayError(fmt::format("byte {} of sample {} came out as {} and is {} now", slot.next + 1,
                                    slot.sequence + 1, sequence.bytes[slot.next], byte));
  } else {
    sequence.bytes.push_back(byte);
    ++drawn_;
    --left_;
  }
  ++slot.next;
  if (slot.next == sequence.known()) replaying_[slot.sequence] = false;
}

void Generator::draw_run(int64_t steps) {
  for (int64_t s = 0; s < decoder_.streams(); ++s) {
    const Slot& slot = slots_[s];
    Continuation& c = continuations_[s];
    c = {};
    if (slot.sequence < 0) continue;
    const Sequence& sequence = sequences_[slot.sequence];
    c.position = slot.next - slot.origin;
    c.previous = c.position > 0 ? sequence.bytes[slot.next - 1] : uint8_t{0};
    c.count = steps;
    c.draw.sampler = sequence.sampler;
    c.draw.stream = sequence.stream;
    c.draw.origin = slot.origin;
  }
  out_.resize(static_cast<size_t>(decoder_.streams() * steps));
  decoder_.advance(continuations_, steps, out_);
  for (int64_t s = 0; s < decoder_.streams(); ++s) {
    Slot& slot = slots_[s];
    if (slot.sequence < 0) continue;
    for (int64_t i = 0; i < steps; ++i) take(slot, out_[s * steps + i]);
    if (slot.next == sequences_[slot.sequence].length) slot.sequence = -1;
  }
}

void Generator::advance(int64_t steps) {
  while (steps > 0 && !done()) {
    fill_slots();
    // Up to the first end among the slots, so that no slot is idle while there is work.
    int64_t run = steps;
    for (const Slot& slot : slots_)
      if (slot.sequence >= 0) run = std::min(run, run_of(slot));
    draw_run(run);
    steps -= run;
  }
}

int64_t longest_prefill(std::span<const Sequence> sequences, const Windows& windows) {
  int64_t longest = 0;
  for (const Sequence& sequence : sequences) {
    if (sequence.finished()) continue;
    const int64_t at = sequence.known();
    longest = std::max(longest, windows.first_drawn(at, sequence.prime) - windows.origin(at));
    if (sequence.length > windows.origin(at) + windows.context)
      longest = std::max(longest, windows.context - windows.hop);
  }
  return longest;
}

int64_t streams_that_fit(const ModelConfig& config, Device device, DType product, DecoderOptions options,
                         int64_t memory) {
  int64_t fewest = 1, most = options.streams;
  while (fewest < most) {
    options.streams = fewest + (most - fewest + 1) / 2;
    if (Decoder::bytes(config, device, product, options) <= memory)
      fewest = options.streams;
    else
      most = options.streams - 1;
  }
  return fewest;
}

}  // namespace longstride
