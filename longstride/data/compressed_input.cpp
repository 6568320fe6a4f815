#include "longstride/data/compressed_input.h"

#include <algorithm>

#include <archive.h>
#include <archive_entry.h>
#include <unistd.h>
#include <zlib.h>
#ifdef LONGSTRIDE_ZSTD
#include <zstd.h>
#endif

#include "longstride/base/check.h"

namespace longstride::data {

namespace {

constexpr size_t kBlock = 128 * 1024;

// A file that is read in blocks. Decompressors take from it what they need.
class Source {
 public:
  Source(std::string path, int64_t begin)
      : path_(std::move(path)), file_(open_for_reading(path_)), consumed_(begin) {
    LONGSTRIDE_CHECK(::lseek(file_.get(), begin, SEEK_SET) == begin, "cannot read {}: {}", path_,
                     last_system_error());
  }

  // Returns at least `count` bytes, or what is left if that is less.
  std::span<const uint8_t> peek(size_t count) {
    if (block_.size() - at_ < count) {
      block_.erase(block_.begin(), block_.begin() + static_cast<ptrdiff_t>(at_));
      at_ = 0;
      const size_t known = block_.size();
      block_.resize(known + kBlock);
      block_.resize(known + read_some(file_.get(), std::span(block_).subspan(known), path_));
    }
    return std::span(block_).subspan(at_);
  }
  void take(size_t count) {
    at_ += count;
    consumed_ += static_cast<int64_t>(count);
  }
  int64_t consumed() const { return consumed_; }

 private:
  std::string path_;
  FileDescriptor file_;
  std::vector<uint8_t> block_;
  size_t at_ = 0;
  int64_t consumed_;
};

class PlainInput : public CompressedInput {
 public:
  PlainInput(const std::string& path, int64_t begin)
      : path_(path), file_(open_for_reading(path)), block_(kBlock), at_(begin), size_(stat_file(path).size) {}

  std::span<const uint8_t> next() override {
    LONGSTRIDE_CHECK(::lseek(file_.get(), at_, SEEK_SET) == at_, "cannot read {}: {}", path_,
                     last_system_error());
    const size_t count = read_some(file_.get(), block_, path_);
    at_ += static_cast<int64_t>(count);
    return std::span(block_).first(count);
  }
  int64_t skip(int64_t count) override {
    const int64_t skipped = std::clamp<int64_t>(count, 0, std::max<int64_t>(0, size_ - at_));
    at_ += skipped;
    return skipped;
  }
  int64_t consumed() const override { return at_; }

 private:
  std::string path_;
  FileDescriptor file_;
  std::vector<uint8_t> block_;
  int64_t at_, size_;
};

class GzipInput : public CompressedInput {
 public:
  GzipInput(const std::string& path, int64_t begin) : source_(path, begin), output_(kBlock) {
    constexpr int kGzipOnly = 16;
    LONGSTRIDE_CHECK(inflateInit2(&stream_, kGzipOnly + MAX_WBITS) == Z_OK, "no memory to decompress");
  }
  ~GzipInput() override { inflateEnd(&stream_); }

  std::span<const uint8_t> next() override {
    while (!done_) {
      if (!inside_) {
        const std::span<const uint8_t> head = source_.peek(2);
        done_ = head.size() < 2 || head[0] != 0x1F || head[1] != 0x8B;
        if (done_) break;
        inflateReset(&stream_);
        inside_ = true;
      }
      const std::span<const uint8_t> input = source_.peek(1);
      stream_.next_in = const_cast<Bytef*>(input.data());
      stream_.avail_in = static_cast<uInt>(input.size());
      stream_.next_out = output_.data();
      stream_.avail_out = static_cast<uInt>(output_.size());
      const int status = inflate(&stream_, Z_NO_FLUSH);
      source_.take(input.size() - stream_.avail_in);
      LONGSTRIDE_CHECK(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR, "{}",
                       stream_.msg != nullptr ? stream_.msg : "no gzip data");
      const size_t count = output_.size() - stream_.avail_out;
      inside_ = status != Z_STREAM_END;
      LONGSTRIDE_CHECK(!inside_ || count > 0 || !input.empty(), "the gzip stream ends early");
      if (count > 0) return std::span(output_).first(count);
    }
    return {};
  }
  int64_t consumed() const override { return source_.consumed(); }

 private:
  Source source_;
  std::vector<uint8_t> output_;
  z_stream stream_{};
  bool inside_ = false, done_ = false;
};

#ifdef LONGSTRIDE_ZSTD
class ZstdInput : public CompressedInput {
 public:
  ZstdInput(const std::string& path, int64_t begin)
      : source_(path, begin), output_(ZSTD_DStreamOutSize()), stream_(ZSTD_createDStream()) {
    LONGSTRIDE_CHECK(stream_ != nullptr, "no memory to decompress");
    // Accepts whatever zstd --ultra --long writes; the window takes memory only as it fills.
    const ZSTD_bounds windows = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, windows.upperBound);
  }

  std::span<const uint8_t> next() override {
    for (;;) {
      const std::span<const uint8_t> input = source_.peek(4);
      if (!inside_ && !begins_frame(input)) return {};
      ZSTD_inBuffer in{input.data(), input.size(), 0};
      ZSTD_outBuffer out{output_.data(), output_.size(), 0};
      const size_t status = ZSTD_decompressStream(stream_.get(), &out, &in);
      source_.take(in.pos);
      LONGSTRIDE_CHECK(ZSTD_isError(status) == 0, "{}", ZSTD_getErrorName(status));
      inside_ = status != 0;
      if (out.pos > 0) return std::span(output_).first(out.pos);
      LONGSTRIDE_CHECK(!inside_ || !input.empty(), "the zstd stream ends early");
    }
  }
  int64_t consumed() const override { return source_.consumed(); }

 private:
  static bool begins_frame(std::span<const uint8_t> head) {
    if (head.size() < 4) return false;
    const uint32_t magic =
        head[0] | uint32_t{head[1]} << 8 | uint32_t{head[2]} << 16 | uint32_t{head[3]} << 24;
    return magic == ZSTD_MAGICNUMBER || (magic & 0xFFFFFFF0u) == 0x184D2A50u;
  }
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  Source source_;
  std::vector<uint8_t> output_;
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  bool inside_ = false;
};
#endif

// The compressions that libarchive decodes.
class FilterInput : public CompressedInput {
 public:
  FilterInput(const std::string& path, int64_t begin, Compression compression)
      : path_(path), file_(open_for_reading(path)), compression_(compression), output_(kBlock) {
    open(begin);
  }

  std::span<const uint8_t> next() override {
    for (;;) {
      const la_ssize_t count = filled_ ? archive_read_data(get(), output_.data(), output_.size()) : 0;
      if (count == ARCHIVE_RETRY) continue;
      check(count < 0 ? ARCHIVE_FATAL : ARCHIVE_OK);
      if (count > 0) return std::span(output_).first(static_cast<size_t>(count));
      // libarchive takes an empty frame of lz4 for the end.
      if (compression_ != Compression::lz4 || consumed() == begin_ || !begins_lz4_frame(consumed()))
        return {};
      open(consumed());
    }
  }
  int64_t consumed() const override { return begin_ + archive_filter_bytes(get(), -1); }

 private:
  archive* get() const { return archive_.get(); }

  void open(int64_t begin) {
    begin_ = begin;
    archive_.reset(archive_read_new());
    LONGSTRIDE_CHECK(archive_ != nullptr, "no memory to decompress");
    if (compression_ == Compression::xz) archive_read_support_filter_xz(get());
    if (compression_ == Compression::zstd) archive_read_support_filter_zstd(get());
    if (compression_ == Compression::bzip2) archive_read_support_filter_bzip2(get());
    if (compression_ == Compression::lz4) archive_read_support_filter_lz4(get());
    archive_read_support_format_raw(get());
    archive_read_support_format_empty(get());
    LONGSTRIDE_CHECK(::lseek(file_.get(), begin, SEEK_SET) == begin, "cannot read {}: {}", path_,
                     last_system_error());
    check(archive_read_open_fd(get(), file_.get(), kBlock));
    LONGSTRIDE_CHECK(archive_filter_count(get()) > 1, "its header is not that of {}", name_of(compression_));
    archive_entry* entry = nullptr;
    const int status = archive_read_next_header(get(), &entry);
    // A stream that breaks before its first byte looks like an empty one, except for the error that it
    // leaves.
    filled_ = status != ARCHIVE_EOF;
    check(!filled_ && archive_error_string(get()) != nullptr ? ARCHIVE_FATAL : filled_ ? status : ARCHIVE_OK);
  }
  bool begins_lz4_frame(int64_t at) const {
    std::vector<uint8_t> head(4);
    if (::pread(file_.get(), head.data(), head.size(), at) != std::ssize(head)) return false;
    return head == std::vector<uint8_t>{0x04, 0x22, 0x4D, 0x18};
  }
  void check(int status) const {
    const char* reason = archive_error_string(get());
    LONGSTRIDE_CHECK(status == ARCHIVE_OK || status == ARCHIVE_WARN, "{}",
                     reason != nullptr ? reason : "unknown error");
  }

  struct Free {
    void operator()(archive* reader) const { archive_read_free(reader); }
  };
  std::string path_;
  FileDescriptor file_;
  Compression compression_;
  std::vector<uint8_t> output_;
  std::unique_ptr<archive, Free> archive_;
  int64_t begin_ = 0;
  bool filled_ = false;
};

}  // namespace

std::string name_of(Compression compression) {
  switch (compression) {
    case Compression::gzip:
      return "gzip";
    case Compression::bzip2:
      return "bzip2";
    case Compression::xz:
      return "xz";
    case Compression::zstd:
      return "zstd";
    case Compression::lz4:
      return "lz4";
    case Compression::none:
      break;
  }
  return "uncompressed";
}

std::unique_ptr<CompressedInput> open_compressed(const std::string& path, int64_t begin,
                                                 Compression compression) {
  if (compression == Compression::gzip) return std::make_unique<GzipInput>(path, begin);
#ifdef LONGSTRIDE_ZSTD
  if (compression == Compression::zstd) return std::make_unique<ZstdInput>(path, begin);
#endif
  if (compression == Compression::none) return std::make_unique<PlainInput>(path, begin);
  return std::make_unique<FilterInput>(path, begin, compression);
}

bool reads_long_windows() {
#ifdef LONGSTRIDE_ZSTD
  return true;
#else
  return false;
#endif
}

}  // namespace longstride::data
