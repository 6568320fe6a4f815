#include "longstride/sample/session.h"

#include <filesystem>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/checksum.h"

#include "tests/support/random_model.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using support::changed_config;
using support::random_bytes;
using support::RandomModel;
using support::small_config;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

SamplerConfig seeded_by(uint64_t seed) {
  SamplerConfig sampler;
  sampler.seed = seed;
  return sampler;
}

Session example() {
  Session session;
  session.model = "0123456789abcdef0123456789abcdef";
  session.run = "runs/\"quoted\" and\nbroken \xff";
  session.step = 1200;
  session.weights = "int8";
  session.precision = "bf16";
  session.exact_scores = true;
  session.device = "cpu: some, 2 threads";
  session.settings = {"compute.device=cpu", "compute.threads=2"};
  session.kind = "text";
  session.length = 300;
  session.hop = 0.1;
  session.sampler = {0.1 + 0.2, 40, 0.9, 0xffffffffffffffff};
  session.output = "out.txt";
  for (uint32_t i = 0; i < 4; ++i) {
    SamplerConfig sampler = session.sampler;
    sampler.seed -= i;
    session.sequences.push_back(sequence_after(random_bytes(i * 3, i), 300, sampler, 0xffffffff - i));
    const Bytes more = random_bytes(i == 1 ? 297 : 7 * i, 9);
    session.sequences[i].bytes.insert(session.sequences[i].bytes.end(), more.begin(), more.end());
  }
  return session;
}

TEST(Session, KnowsItsOwnFiles) {
  const TemporaryFolder folder;
  Session session = example();
  EXPECT_TRUE(is_own(session.written, folder / "out"));
  write_bytes(folder / "out", "x");
  EXPECT_FALSE(is_own(session.written, folder / "out"));
  note_written(session.written, folder / "out");
  save_session(folder / "s", session);
  session = load_session(folder / "s");
  EXPECT_TRUE(is_own(session.written, folder / "out"));
  write_bytes(folder / "other", "x");
  EXPECT_FALSE(is_own(session.written, folder / "other"));
  std::filesystem::rename(folder / "other", folder / "out");
  EXPECT_FALSE(is_own(session.written, folder / "out"));
  std::filesystem::remove(folder / "out");
  std::filesystem::create_symlink("nothing", folder / "out");
  EXPECT_FALSE(is_own(session.written, folder / "out"));
}

void expect_equal(const SamplerConfig& a, const SamplerConfig& b) {
  EXPECT_EQ(a.temperature, b.temperature);
  EXPECT_EQ(a.top_k, b.top_k);
  EXPECT_EQ(a.top_p, b.top_p);
  EXPECT_EQ(a.seed, b.seed);
}

// ---- the file ----

class SessionFile : public ::testing::Test {
 protected:
  std::string message(const std::string& content) {
    write_bytes(path_, content);
    return message_of<Error>([&] { load_session(path_); });
  }
  TemporaryFolder folder_;
  const std::string path_ = folder_ / "a.state";
};

TEST_F(SessionFile, ComesBackAsItWasSaved) {
  const Session saved = example();
  save_session(path_, saved);
  const Session loaded = load_session(path_);
  EXPECT_EQ(loaded.model, saved.model);
  EXPECT_EQ(loaded.run, "runs/\"quoted\" and\nbroken \xef\xbf\xbd");  // not UTF-8: only a hint
  EXPECT_EQ(loaded.step, saved.step);
  EXPECT_EQ(loaded.weights, saved.weights);
  EXPECT_EQ(loaded.precision, saved.precision);
  EXPECT_EQ(loaded.exact_scores, saved.exact_scores);
  EXPECT_EQ(loaded.device, saved.device);
  EXPECT_EQ(loaded.settings, saved.settings);
  EXPECT_EQ(loaded.kind, saved.kind);
  EXPECT_EQ(loaded.length, saved.length);
  EXPECT_EQ(loaded.hop, saved.hop);
  EXPECT_EQ(loaded.output, saved.output);
  expect_equal(loaded.sampler, saved.sampler);
  ASSERT_EQ(loaded.sequences.size(), saved.sequences.size());
  for (size_t i = 0; i < saved.sequences.size(); ++i) {
    const Sequence &a = loaded.sequences[i], &b = saved.sequences[i];
    EXPECT_EQ(a.bytes, b.bytes);
    EXPECT_EQ(a.prime, b.prime);
    EXPECT_EQ(a.length, b.length);
    EXPECT_EQ(a.stream, b.stream);
    expect_equal(a.sampler, b.sampler);
  }
  EXPECT_EQ(names_in(folder_.path()), std::vector<std::string>{"a.state"});
}

TEST_F(SessionFile, DamageAnywhereIsFound) {
  save_session(path_, example());
  const std::string whole = read_bytes(path_);
  for (size_t at = 0; at < whole.size(); ++at)
    for (const char bit : {1, 64}) {
      std::string altered = whole;
      altered[at] ^= bit;
      EXPECT_THAT(message(altered), AnyOf(HasSubstr("is damaged"), HasSubstr("is not the state"))) << at;
    }
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_THAT(message(whole.substr(0, size)), AnyOf(HasSubstr("is damaged"), HasSubstr("is not the state")))
        << size;
  EXPECT_THAT(message(whole + "x"), HasSubstr("is damaged"));
  EXPECT_THAT(message(whole + whole), HasSubstr("is damaged"));
}

TEST_F(SessionFile, ForeignFilesAreRefused) {
  EXPECT_THAT(message(""), HasSubstr("is not the state of a sampling run"));
  EXPECT_THAT(message("{\"model\": 1}"), HasSubstr("is not the state of a sampling run"));
  EXPECT_THAT(message(std::string(100, '\0')), HasSubstr("is not the state of a sampling run"));
  EXPECT_THAT(message_of<Error>([&] { load_session(folder_ / "none"); }), HasSubstr("none"));
  EXPECT_THAT(message_of<Error>([&] { load_session(folder_.path()); }), HasSubstr(folder_.path()));
}

// A checksum does not protect against a person.
TEST_F(SessionFile, ContentsThatCannotBeAreRefusedEvenIfTheChecksumFits) {
  save_session(path_, example());
  const std::string whole = read_bytes(path_);
  const auto forged = [&](const std::string& from, const std::string& to) {
    std::string content = whole.substr(0, whole.size() - 32);
    const size_t at = content.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    content.replace(at, from.size(), to);
    return message(content + checksum_of(content.data(), std::ssize(content)));
  };
  EXPECT_THAT(forged("session 1\n", "session 2\n"), HasSubstr("a state of format 2"));
  EXPECT_THAT(forged("session 1\n", "session\n"), HasSubstr("is not the state"));
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"\"known\":0,", "\"known\":9000,"},
           {"\"known\":0,", "\"known\":-1,"},
           {"\"known\":300,", "\"known\":299,"},
           {"\"stream\":4294967295", "\"stream\":4294967296"},
           {"\"prime\":3,", "\"prime\":301,"},
           {"\"prime\":3,", "\"prime\":-3,"},
           {"\"length\":300,\"prime\"", "\"length\":0,\"prime\""},
           {"\"length\":300,\"prime\"", "\"length\":\"a\",\"prime\""},
           {"\"top_k\":40", "\"top_k\":-40"},
           {"\"top_k\":40", "\"top_k\":40.5"},
           {"\"prime\":3,", "\"prime\":3.5,"},
           {"\"length\":300,\"prime\"", "\"length\":1e300,\"prime\""},
           {"\"length\":300,\"prime\"", "\"length\":18446744073709551615,\"prime\""},
           {"\"step\":", "\"step\":-"},
           {"\"stream\":", "\"strm\":"},
           {"\"hop\":0.1", "\"hop\":0.1,"},
           {"{", "["}})
    EXPECT_THAT(forged(from, to), HasSubstr("is damaged")) << from << " -> " << to;
}

TEST_F(SessionFile, AnUnwritablePathKeepsWhatIsThere) {
  EXPECT_THROW(save_session(folder_ / "no/folder.state", example()), Error);
  save_session(path_, example());
  Session other = example();
  other.step = 1;
  save_session(path_, other);
  EXPECT_EQ(load_session(path_).step, 1);
}

// ---- resuming ----

std::vector<Sequence> small_run() {
  std::vector<Sequence> sequences;
  for (uint32_t i = 0; i < 3; ++i)
    sequences.push_back(sequence_after(random_bytes(7 * i, i), std::array{70, 33, 57}[i], seeded_by(4), i));
  return sequences;
}

std::unique_ptr<Decoder> decoder_of(const RandomModel& model, int64_t slots) {
  DecoderOptions options;
  options.streams = slots;
  return std::make_unique<Decoder>(model.config, model.parameters, Device{}, options);
}

std::vector<Bytes> finish(Generator& generator, int64_t steps = 5) {
  while (!generator.done()) generator.advance(steps);
  std::vector<Bytes> all;
  for (const Sequence& sequence : generator.sequences()) all.push_back(sequence.bytes);
  return all;
}

void expect_every_stop_to_go_on(const RandomModel& model) {
  TemporaryFolder folder;
  for (const double hop : {0.5, 0.8}) {
    const Windows windows = windows_of(model.config, hop);
    const auto decoder = decoder_of(model, 2), other = decoder_of(model, 2);
    Generator whole(*decoder, small_run(), windows);
    const std::vector<Bytes> expected = finish(whole);
    Generator stopped(*decoder, small_run(), windows);
    for (int stop = 0; !stopped.done(); ++stop) {
      Session session = example();
      session.sequences = stopped.sequences();
      save_session(folder / "state", session);
      Generator resumed(*other, load_session(folder / "state").sequences, windows);
      EXPECT_EQ(resumed.left(), stopped.left());
      EXPECT_EQ(finish(resumed, 1 + stop % 9), expected) << "stopped after " << stop;
      EXPECT_FALSE(resumed.replaying());
      EXPECT_EQ(resumed.drawn(), stopped.left());
      stopped.advance(1);
    }
    // With another number of slots, and from one stop to the next.
    const auto wide = decoder_of(model, 5);
    std::vector<Sequence> sequences = small_run();
    for (int stop = 0; stop < 200; ++stop) {
      Generator generator(stop % 2 ? *wide : *other, sequences, windows);
      generator.advance(3);
      const bool done = generator.done();
      // Replaying takes a part of the steps. The steps here draw new bytes.
      for (int i = 0; i < 20 && generator.drawn() == 0 && !generator.done(); ++i) generator.advance(3);
      sequences = generator.sequences();
      if (done) break;
    }
    for (size_t i = 0; i < sequences.size(); ++i) EXPECT_EQ(sequences[i].bytes, expected[i]);
  }
}

TEST(Resume, AtEveryByteItEndsAsIfItHadNotStopped) {
  expect_every_stop_to_go_on(RandomModel(small_config("strided:8", 24)));
}

TEST(Resume, SoDoesAModelThatChangesQueriesKeysAndValues) {
  expect_every_stop_to_go_on(RandomModel(changed_config("strided:8", 24)));
}

TEST(Resume, OnAModelThatDrawsOtherBytesIsAnError) {
  const RandomModel model(small_config("strided:8", 24)), another(small_config("strided:8", 24), 8);
  const Windows windows = windows_of(model.config, 0.5);
  const auto decoder = decoder_of(model, 1), other = decoder_of(another, 1);
  Generator first(*decoder, {sequence_after({}, 90, seeded_by(4), 0)}, windows);
  first.advance(43);  // 36 begin the third window
  std::vector<Sequence> sequences = first.sequences();
  Generator wrong(*other, sequences, windows);
  EXPECT_TRUE(wrong.replaying(0));
  EXPECT_THAT(message_of<ReplayError>([&] { finish(wrong); }), HasSubstr("of sample 1 came out as"));
  // A byte that the present window was given is not drawn again; the bytes after it are.
  sequences[0].bytes[40] ^= 1;
  Generator altered(*decoder, sequences, windows);
  EXPECT_THAT(message_of<ReplayError>([&] { finish(altered); }),
              HasSubstr("byte 41 of sample 1 came out as"));
}

// ---- branches ----

std::vector<Bytes> continue_session(const RandomModel& model, const Session& session) {
  const auto decoder = decoder_of(model, 4);
  Generator generator(*decoder, session.sequences, windows_of(model.config, 0.5));
  return finish(generator);
}

size_t distinct(const std::vector<Bytes>& all) {
  std::set<std::string> set;
  for (const Bytes& bytes : all) set.emplace(bytes.begin(), bytes.end());
  return set.size();
}

class Branches : public ::testing::Test {
 protected:
  Branches() : model_(small_config("strided:8", 24)), session_(example()) {
    session_.length = 60;
    session_.sampler = seeded_by(4);
    session_.sequences.clear();
    for (uint32_t i = 0; i < 2; ++i)
      session_.sequences.push_back(sequence_after(random_bytes(5, 1), 60, seeded_by(4), i));
    const auto decoder = decoder_of(model_, 2);
    Generator generator(*decoder, session_.sequences, windows_of(model_.config, 0.5));
    generator.advance(30);
    session_.sequences = generator.sequences();
  }
  RandomModel model_;
  Session session_;
};

TEST_F(Branches, GoOnDifferentlyFromTheSameBytes) {
  const Session branches = branch(session_, {.count = 5});
  ASSERT_EQ(branches.sequences.size(), 10u);
  const std::vector<Bytes> all = continue_session(model_, branches);
  EXPECT_EQ(distinct(all), 10u);
  for (int i = 0; i < 10; ++i) {
    const Bytes& before = session_.sequences[i / 5].bytes;
    EXPECT_EQ(all[i].size(), 60u);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), all[i].begin()));
  }
  for (const Bytes& own : continue_session(model_, session_))
    EXPECT_EQ(std::count(all.begin(), all.end(), own), 0);
}

TEST_F(Branches, EachIsTheSameAgainWhateverTheirNumber) {
  const std::vector<Bytes> five = continue_session(model_, branch(session_, {.count = 5}));
  const std::vector<Bytes> two = continue_session(model_, branch(session_, {.count = 2}));
  EXPECT_EQ(two, (std::vector<Bytes>{five[0], five[1], five[5], five[6]}));
  const std::vector<Bytes> seeded = continue_session(model_, branch(session_, {.count = 2, .seed = 9}));
  EXPECT_EQ(seeded, continue_session(model_, branch(session_, {.count = 2, .seed = 9})));
  for (int i = 0; i < 4; ++i) EXPECT_NE(seeded[i], two[i]);
}

TEST_F(Branches, OfBranchesAreDifferentToo) {
  // Before anything is drawn, the two branches of a sequence differ only in their seeds.
  const Session twice = branch(branch(session_, {.count = 2, .seed = 1}), {.count = 2, .seed = 1});
  const std::vector<Bytes> all = continue_session(model_, twice);
  EXPECT_EQ(distinct(all), 8u);
}

TEST_F(Branches, TakeTheirOwnOptions) {
  const BranchOptions options{
      .count = 2, .length = 80, .temperature = 0.5, .top_k = 7, .top_p = 0.9, .seed = 3};
  const Session branches = branch(session_, options);
  EXPECT_EQ(branches.length, 80);
  EXPECT_EQ(branches.sampler.seed, 3u);
  for (const Sequence& sequence : branches.sequences) {
    EXPECT_EQ(sequence.length, 80);
    EXPECT_EQ(sequence.prime, 35);
    EXPECT_EQ(sequence.sampler.temperature, 0.5);
    EXPECT_EQ(sequence.sampler.top_p, 0.9);
    EXPECT_EQ(sequence.sampler.top_k, 7);
  }
  EXPECT_EQ(branches.sequences[1].sampler.seed, branch_seed(3, 4, 1));
  // At temperature 0 there is no chance.
  const std::vector<Bytes> sure =
      continue_session(model_, branch(session_, {.count = 2, .temperature = 0.0}));
  EXPECT_EQ(sure[0], sure[1]);
}

TEST_F(Branches, FinishedSamplesGoOnWithALargerLengthOnly) {
  session_.sequences[0].length = session_.sequences[0].known();
  EXPECT_EQ(branch(session_, {.count = 3}).sequences.size(), 3u);
  session_.sequences[1].length = session_.sequences[1].known();
  EXPECT_THAT(message_of<Error>([&] { branch(session_, {}); }), HasSubstr("a larger length"));
  EXPECT_EQ(branch(session_, {.count = 3, .length = 61}).sequences.size(), 6u);
  EXPECT_THROW(branch(session_, {.count = 0}), Error);
}

TEST(BranchSeed, IsTheSameInEveryVersion) {
  EXPECT_EQ(branch_seed(1, 2, 3), 15999248036857315151u);
  std::set<uint64_t> seeds;
  for (uint64_t seed = 0; seed < 10; ++seed)
    for (uint64_t parent = 0; parent < 10; ++parent)
      for (int64_t index = 0; index < 10; ++index) seeds.insert(branch_seed(seed, parent, index));
  EXPECT_EQ(seeds.size(), 1000u);
}

}  // namespace
}  // namespace longstride
