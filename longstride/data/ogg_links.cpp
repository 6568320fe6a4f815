#include "longstride/data/ogg_links.h"

#include <algorithm>
#include <map>
#include <span>

#include <ogg/ogg.h>

#include "longstride/base/check.h"

namespace longstride::data {

namespace {

constexpr long kBlock = 1 << 16;

// Walks the pages of a view.
class Pages {
 public:
  explicit Pages(const SoundView& view) : view_(view) { ogg_sync_init(&state_); }
  ~Pages() { ogg_sync_clear(&state_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  // False at the end, and if no whole page follows.
  bool next(ogg_page& page) {
    begin_ = end_;
    for (;;) {
      const long count = ogg_sync_pageseek(&state_, &page);
      if (count < 0) return false;
      if (count > 0) {
        end_ += count;
        return true;
      }
      char* buffer = ogg_sync_buffer(&state_, kBlock);
      LONGSTRIDE_CHECK(buffer != nullptr, "{}: not enough memory", view_.label());
      const size_t read =
          view_.read(read_, {reinterpret_cast<uint8_t*>(buffer), static_cast<size_t>(kBlock)});
      if (read == 0) return false;
      ogg_sync_wrote(&state_, static_cast<long>(read));
      read_ += static_cast<int64_t>(read);
    }
  }
  int64_t begin() const { return begin_; }  // of the page
  int64_t end() const { return end_; }

 private:
  const SoundView& view_;
  ogg_sync_state state_{};
  int64_t read_ = 0, begin_ = 0, end_ = 0;
};

struct Stream {
  long number = 0;  // of its newest page
  bool sounds = false;
  bool ended = false;
};

// True if a page begins somewhere from `at` on.
bool has_page(const SoundView& view, int64_t at) {
  constexpr size_t kOverlap = 3;
  for (; at < view.size(); at += kBlock)
    if (view.text(at, kBlock + kOverlap).find("OggS") != std::string::npos) return true;
  return false;
}

}  // namespace

std::vector<SoundView> split_ogg(const SoundView& view) {
  std::vector<SoundView> links;
  std::map<int, Stream> streams;  // of the link, by their serial numbers
  bool beginning = false;         // the first pages of a link's streams come before all others
  int64_t begin = 0;
  const auto finish = [&](int64_t end) {
    LONGSTRIDE_CHECK(
        std::all_of(streams.begin(), streams.end(), [](auto& item) { return item.second.ended; }),
        "{}: {}end page of the Ogg stream is missing; {}", view.label(),
        end < view.size() ? "the sound goes on, but before it an " : "the ", kSoundAdvice);
    links.push_back(view.part(begin, end));
    streams.clear();
    begin = end;
  };

  Pages pages(view);
  ogg_page page;
  while (pages.next(page)) {
    if (ogg_page_bos(&page) != 0) {
      if (!beginning && !streams.empty()) finish(pages.begin());
      beginning = true;
      streams[ogg_page_serialno(&page)] = {ogg_page_pageno(&page), false, ogg_page_eos(&page) != 0};
      continue;
    }
    beginning = false;
    const auto found = streams.find(ogg_page_serialno(&page));
    LONGSTRIDE_CHECK(found != streams.end(), "{}: the Ogg page at byte {} belongs to no stream; {}",
                     view.label(), pages.begin(), kSoundAdvice);
    Stream& stream = found->second;
    // A recorded broadcast may lack pages between its headers and its sound.
    LONGSTRIDE_CHECK(!stream.sounds || ogg_page_pageno(&page) == stream.number + 1,
                     "{}: Ogg pages are missing before byte {}; {}", view.label(), pages.begin(),
                     kSoundAdvice);
    stream.number = ogg_page_pageno(&page);
    stream.sounds = stream.sounds || ogg_page_granulepos(&page) > 0;
    stream.ended = stream.ended || ogg_page_eos(&page) != 0;
  }
  if (pages.end() < view.size())
    LONGSTRIDE_CHECK(!has_page(view, pages.end()), "{}: the Ogg page at byte {} is not whole; {}",
                     view.label(), pages.end(), kSoundAdvice);
  LONGSTRIDE_CHECK(!streams.empty(), "{}: an Ogg file without a whole page; {}", view.label(), kSoundAdvice);
  finish(pages.end());
  return links;
}

}  // namespace longstride::data
