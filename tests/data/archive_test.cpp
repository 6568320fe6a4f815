// An archive gives what would be there after unpacking it, in every packing.
#include <algorithm>
#include <filesystem>

#include <gmock/gmock.h>
#include <png.h>
#include <sndfile.h>

#include "longstride/data/corpus.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using data_test::Bytes;
using data_test::bytes_of;
using data_test::error_of;
using data_test::Link;
using data_test::make_tar;
using data_test::Pack;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class ArchiveTest : public data_test::DataTest {
 protected:
  Corpus open(const std::string& kind, const std::string& name) const {
    return open_corpus(config(kind, name), at(name));
  }
  Bytes text(const std::string& name) const { return data_test::all_bytes(open("text", name)); }
  std::string told(const std::string& name, const std::string& kind = "text") const {
    return open(kind, name).description();
  }
  std::string error(const std::string& kind, const std::string& name) const {
    return error_of([&] { open(kind, name); });
  }
  // The names of one tar in all its packings.
  std::vector<std::string> packed(const std::string& stem, const Bytes& tar) const {
    data_test::write_file(at(stem + ".tar"), tar);
    std::vector<std::string> names{stem + ".tar"};
    for (const auto& [suffix, pack] : {std::pair{".gz", Pack::gzip},
                                       {".bz2", Pack::bzip2},
                                       {".xz", Pack::xz},
                                       {".zst", Pack::zstd},
                                       {".lz4", Pack::lz4}}) {
      names.push_back(stem + ".tar" + suffix);
      data_test::write_compressed(at(names.back()), pack, tar);
    }
    return names;
  }
};

Bytes joined(Bytes first, const Bytes& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

Bytes grey_png(uint8_t value) { return data_test::make_png(Bytes(4, value), 2, 2, {PNG_COLOR_TYPE_GRAY}); }

TEST_F(ArchiveTest, TarOfVersion7IsRecognised) {
  for (const std::string& name :
       packed("old", make_tar({{"a.txt", bytes_of("first ")}, {"b.txt", bytes_of("second")}}, true)))
    EXPECT_EQ(text(name), bytes_of("first second")) << name;
}

TEST_F(ArchiveTest, TarsBehindEachOtherAreReadToTheEnd) {
  const Bytes first = make_tar({{"a.txt", bytes_of("first ")}}),
              second = make_tar({{"b.txt", bytes_of("second")}}), nothing = make_tar({});
  for (const std::string& name : packed("two", joined(first, second)))
    EXPECT_EQ(text(name), bytes_of("first second")) << name;
  for (const std::string& name : packed("late", joined(nothing, second)))
    EXPECT_EQ(text(name), bytes_of("second")) << name;
  for (const std::string& name : packed("rest", joined(first, Bytes(700, 'x'))))
    EXPECT_THAT(error("text", name), AllOf(HasSubstr(name), HasSubstr("damaged"))) << name;
  for (const std::string& name : packed("odd", joined(first, Bytes(1003, 0))))
    EXPECT_EQ(text(name), bytes_of("first ")) << name;
  for (const std::string& name : packed("none", nothing))
    EXPECT_THAT(error("text", name), HasSubstr("is empty"));
}

TEST_F(ArchiveTest, TheLastMemberOfANameCounts) {
  const std::vector<data_test::TarEntry> entries{
      {"a.txt", bytes_of("replaced")}, {"b.txt", bytes_of("first ")}, {"./a.txt", bytes_of("second")}};
  for (const std::string& name : packed("twice", make_tar(entries))) {
    EXPECT_EQ(text(name), bytes_of("first second")) << name;
    EXPECT_THAT(told(name), HasSubstr("1 member replaced by later ones of the same name (./a.txt)"));
  }
  data_test::write_zip(at("twice.zip"), {{"a.txt", bytes_of("replaced")}, {"a.txt", bytes_of("kept")}});
  EXPECT_EQ(text("twice.zip"), bytes_of("kept"));
  EXPECT_THAT(told("twice.zip"), HasSubstr("1 member replaced"));
  // A member that is replaced may even have the wrong shape.
  data_test::write_file(at("p.tar"),
                        make_tar({{"1.png", data_test::make_png(Bytes(9, 1), 3, 3, {PNG_COLOR_TYPE_GRAY})},
                                  {"2.png", grey_png(2)},
                                  {"1.png", grey_png(1)}}));
  EXPECT_EQ(data_test::all_bytes(open("image", "p.tar")), (Bytes{1, 1, 1, 1, 2, 2, 2, 2}));
  EXPECT_THAT(told("p.tar", "image"), AllOf(HasSubstr("2 pictures"), HasSubstr("1 member replaced")));
}

TEST_F(ArchiveTest, LinksGiveTheBytesThatTheyLeadTo) {
  const std::vector<data_test::TarEntry> entries{{"q/early", {}, Link::symbolic, "1.png"},
                                                 {"q/1.png", grey_png(1)},
                                                 {"q/3.png", grey_png(3)},
                                                 {"q/2.png", {}, Link::hard, "q/1.png"},
                                                 {"q/4.png", {}, Link::symbolic, "../q/./3.png"},
                                                 {"q/5.png", {}, Link::symbolic, "4.png"},
                                                 {"q/d/6.png", grey_png(6)},
                                                 {"q/folder", {}, Link::symbolic, "d"},
                                                 {"q/7.png", {}, Link::symbolic, "folder/6.png"},
                                                 {"q/.8.png", {}, Link::symbolic, "1.png"}};
  for (const std::string& name : packed("links", make_tar(entries))) {
    const Bytes all = data_test::all_bytes(open("image", name));
    Bytes expected;
    for (const uint8_t value : {1, 1, 3, 3, 3, 6, 6, 1}) expected.insert(expected.end(), 4, value);
    EXPECT_EQ(all, expected) << name;
    EXPECT_THAT(told(name, "image"), Not(HasSubstr("skipped"))) << name;
  }
  // The same as the folder, in which "early" comes after the digits.
  for (const auto& [name, value] : {std::pair{"1.png", 1}, {"3.png", 3}, {"d/6.png", 6}})
    data_test::write_file(at(std::string("q/") + name), grey_png(static_cast<uint8_t>(value)));
  for (const auto& [name, target] : {std::pair{"early", "1.png"},
                                     {"4.png", "3.png"},
                                     {"5.png", "4.png"},
                                     {"folder", "d"},
                                     {"7.png", "folder/6.png"},
                                     {"2.png", "1.png"}})
    std::filesystem::create_symlink(target, at(std::string("q/") + name));
  EXPECT_EQ(data_test::all_bytes(open("image", "q")), data_test::all_bytes(open("image", "links.tar")));
}

TEST_F(ArchiveTest, LinksThatLeadNowhereAreCounted) {
  data_test::write_file(at("a.tar"), make_tar({{"a", bytes_of("text")},
                                               {"b", {}, Link::symbolic, "nothing"},
                                               {"c", {}, Link::symbolic, "/etc/passwd"},
                                               {"d", {}, Link::symbolic, "../../outside"},
                                               {"e", {}, Link::symbolic, "e"},
                                               {"f", {}, Link::hard, "later"},
                                               {"later", bytes_of(" more")}}));
  EXPECT_EQ(text("a.tar"), bytes_of("text more"));
  EXPECT_THAT(told("a.tar"), HasSubstr("5 links to no member skipped (f, ...)"));
}

TEST_F(ArchiveTest, LinksToNothingInAFolderAreCountedToo) {
  data_test::write_file(at("f/a"), "text");
  std::filesystem::create_symlink("nothing", at("f/b"));
  std::filesystem::create_symlink("..", at("f/c"));
  std::filesystem::create_symlink("nothing", at("f/.d"));
  EXPECT_EQ(text("f"), bytes_of("text"));
  EXPECT_THAT(told("f"), HasSubstr("1 link to nothing skipped (" + at("f/b") + ")"));
}

TEST_F(ArchiveTest, AReplacedTargetLeavesItsHardLinkAsItWas) {
  data_test::write_file(
      at("a.tar"), make_tar({{"a", bytes_of("old ")}, {"b", {}, Link::hard, "a"}, {"a", bytes_of("new ")}}));
  EXPECT_EQ(text("a.tar"), bytes_of("old new "));
}

// Sets the encryption flag in the local and the central header of every member.
void encrypt(Bytes& zip) {
  for (size_t i = 0; i + 10 < zip.size(); ++i) {
    if (zip[i] != 'P' || zip[i + 1] != 'K') continue;
    if (zip[i + 2] == 3 && zip[i + 3] == 4) zip[i + 6] |= 1;
    if (zip[i + 2] == 1 && zip[i + 3] == 2) zip[i + 8] |= 1;
  }
}

TEST_F(ArchiveTest, EncryptedZipIsSaidToBeSo) {
  data_test::write_zip(at("a.zip"), {{"a.txt", bytes_of("secret")}});
  Bytes zip = data_test::read_file(at("a.zip"));
  encrypt(zip);
  data_test::write_file(at("a.zip"), zip);
  for (const char* kind : {"text", "image", "audio"})
    EXPECT_THAT(error(kind, "a.zip"), AllOf(HasSubstr("a.zip"), HasSubstr("a.txt is encrypted"),
                                            HasSubstr("password"), Not(HasSubstr("damaged"))));
}

TEST_F(ArchiveTest, ZipBehindAPrefixIsUnpacked) {
  data_test::write_zip(at("a.zip"), {{"a.txt", bytes_of("first ")}, {"b.txt", bytes_of("second")}});
  const Bytes zip = data_test::read_file(at("a.zip"));
  for (const char* name : {"self.zip", "self.exe", "self"}) {
    data_test::write_file(at(name), joined(bytes_of("#!/bin/sh\nexec unzip\n"), zip));
    EXPECT_EQ(text(name), bytes_of("first second")) << name;
    EXPECT_THAT(told(name), HasSubstr("21 bytes in front of the zip archive not read"));
  }
  // A picture with a zip archive after it is still a picture.
  data_test::write_file(at("both.png"), joined(grey_png(1), zip));
  EXPECT_EQ(data_test::all_bytes(open("image", "both.png")), (Bytes{1, 1, 1, 1}));
  data_test::write_file(at("both.zip"), joined(grey_png(1), zip));
  EXPECT_EQ(text("both.zip"), bytes_of("first second"));
  data_test::write_file(at("other.zip"), "words, not an archive at all");
  EXPECT_THAT(error("text", "other.zip"), HasSubstr("named .zip"));
}

TEST_F(ArchiveTest, EmptyMembersAreTreatedAsEmptyFilesAre) {
  const Bytes sound = [&] {
    data_test::write_sound(at("a.wav"), SF_FORMAT_WAV | SF_FORMAT_PCM_16, 12000, 1, {0.5f, 0.25f});
    return data_test::read_file(at("a.wav"));
  }();
  data_test::write_tar(at("p.tar"), Pack::none, {{"a.png", grey_png(1)}, {"b.png", {}}});
  data_test::write_zip(at("p.zip"), {{"a.png", grey_png(1)}, {"b.png", {}}});
  data_test::write_tar(at("s.tar"), Pack::none, {{"a.wav", sound}, {"b.wav", {}}});
  data_test::write_tar(at("t.tar"), Pack::none, {{"a.png", grey_png(1)}, {"b.txt", {}}});
  EXPECT_THAT(error("image", "p.tar"), AllOf(HasSubstr("p.tar: b.png"), HasSubstr("is empty")));
  EXPECT_THAT(error("image", "p.zip"), AllOf(HasSubstr("p.zip: b.png"), HasSubstr("is empty")));
  EXPECT_THAT(error("audio", "s.tar"), AllOf(HasSubstr("s.tar: b.wav"), HasSubstr("is empty")));
  EXPECT_THAT(told("t.tar", "image"), Not(HasSubstr("skipped")));
  EXPECT_THAT(cached(), ::testing::SizeIs(1));
}

TEST_F(ArchiveTest, AFileOfNoBytesThatIsNamedLikeAnArchiveIsAnError) {
  data_test::write_file(at("f/a.txt"), "text");
  for (const std::string name : {"b.gz", "b.tar", "b.zip", "b.tar.zst", "b.png.xz"}) {
    data_test::write_file(at("f/" + name), "");
    for (const char* kind : {"text", "image", "audio"})
      EXPECT_THAT(error(kind, "f"), AllOf(HasSubstr("f/" + name), HasSubstr("is empty"))) << name;
    std::filesystem::remove(at("f/" + name));
  }
  EXPECT_EQ(text("f"), bytes_of("text"));
}

TEST_F(ArchiveTest, AnArchiveOfNothingIsNamed) {
  data_test::write_tar(at("n.tar.gz"), Pack::gzip,
                       {{"folder/", {}}, {"folder/.hidden", bytes_of("x")}, {"empty", {}}});
  for (const char* kind : {"text", "image", "audio"})
    EXPECT_THAT(error(kind, "n.tar.gz"), HasSubstr(at("n.tar.gz")));
}

TEST_F(ArchiveTest, SkippedFilesAreCountedByKind) {
  const data_test::Members members{{"f/a.png", grey_png(1)},       {"f/b.txt", bytes_of("b")},
                                   {"f/c.TXT", bytes_of("c")},     {"f/d.db", bytes_of("d")},
                                   {"f/README", bytes_of("text")}, {"f/.hidden", bytes_of("e")}};
  data_test::write_zip(at("a.zip"), members);
  for (const auto& [name, bytes] : members) data_test::write_file(at(name), bytes);
  EXPECT_THAT(told("a.zip", "image"),
              HasSubstr("skipped 4 files: 2 .txt, 1 .db, 1 without extension; the first: " + at("a.zip") +
                        ": f/b.txt"));
  EXPECT_THAT(told("f", "image"),
              HasSubstr("skipped 4 files: 2 .txt, 1 .db, 1 without extension; the first: "));
  // Six kinds at most have a name.
  for (const char* kind : {"c", "h", "md", "py"})
    data_test::write_file(at(std::string("f/x.") + kind), bytes_of("x"));
  EXPECT_THAT(told("f", "image"),
              HasSubstr("skipped 8 files: 2 .txt, 1 .c, 1 .db, 1 .h, 1 .md, 2 of other kinds;"));
}

TEST_F(ArchiveTest, LabelsBesidePicturesInNpzAreSkipped) {
  const auto npy = [](const std::string& type, const std::string& shape, size_t bytes) {
    const std::string header =
        "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
    Bytes file =
        bytes_of(std::string("\x93NUMPY\x01") + '\0' + static_cast<char>(header.size()) + '\0' + header);
    file.resize(file.size() + bytes, 7);
    return file;
  };
  data_test::write_zip(at("a.npz"), {{"x.npy", npy("|u1", "(4, 2, 2)", 16)},
                                     {"y.npy", npy("<i8", "(4,)", 32)},
                                     {"z.npy", npy("|u1", "(4, 1)", 4)}});
  EXPECT_EQ(data_test::all_bytes(open("image", "a.npz")), Bytes(16, 7));
  EXPECT_THAT(told("a.npz", "image"), HasSubstr("skipped 2 files: 2 .npy"));
  data_test::write_zip(at("b.npz"), {{"x.npy", npy("<f4", "(4, 2, 2)", 64)}});
  EXPECT_THAT(error("image", "b.npz"), AllOf(HasSubstr("b.npz: x.npy"), HasSubstr("<f4")));
}

TEST_F(ArchiveTest, NamesOfMembersAreMadePrintableEverywhere) {
  const std::string evil = "a\n\x1b[2K\x07.png", shown = "a\\x0a\\x1b[2K\\x07.png";
  const auto expect_printable = [&](const std::string& line) {
    EXPECT_THAT(line, HasSubstr(shown));
    EXPECT_EQ(std::count_if(line.begin(), line.end(), [](unsigned char c) { return c < ' '; }), 0) << line;
  };
  const auto tar = [&](const std::string& name, const std::vector<data_test::TarEntry>& entries) {
    data_test::write_file(at(name), make_tar(entries));
  };
  tar("twice.tar", {{evil, bytes_of("old")}, {evil, bytes_of("new")}});
  expect_printable(told("twice.tar"));
  tar("link.tar", {{"a", bytes_of("text")}, {evil, {}, Link::symbolic, "nothing"}});
  expect_printable(told("link.tar"));
  tar("other.tar", {{"a.png", grey_png(1)}, {evil + ".txt", bytes_of("text")}});
  expect_printable(told("other.tar", "image"));
  tar("kind.tar", {{"a.png", grey_png(1)}, {"b.e\x1b\n", bytes_of("text")}});
  EXPECT_THAT(told("kind.tar", "image"), HasSubstr("1 .e\\x1b\\x0a"));
  tar("empty.tar", {{evil, {}}});
  expect_printable(error("image", "empty.tar"));
  tar("bad.tar", {{evil, bytes_of("no picture")}});
  expect_printable(error("image", "bad.tar"));
  tar("first.tar",
      {{evil, grey_png(1)}, {"b.png", data_test::make_png(Bytes(9, 1), 3, 3, {PNG_COLOR_TYPE_GRAY})}});
  expect_printable(error("image", "first.tar"));
  tar("sound.tar", {{evil + ".wav", bytes_of("no sound")}});
  expect_printable(error("audio", "sound.tar"));
  data_test::write_zip(at("a.zip"), {{evil, bytes_of("secret")}});
  Bytes zip = data_test::read_file(at("a.zip"));
  encrypt(zip);
  data_test::write_file(at("a.zip"), zip);
  expect_printable(error("text", "a.zip"));
}

}  // namespace
}  // namespace longstride
