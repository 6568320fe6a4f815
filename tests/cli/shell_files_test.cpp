// The manual page and the completions contain every command and option of the help.
#include <regex>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

// All matches of the first group of `pattern` in `text`.
std::vector<std::string> all_of(const std::string& text, const std::string& pattern) {
  const std::regex expression(pattern);
  std::vector<std::string> found;
  for (std::sregex_iterator at(text.begin(), text.end(), expression), end; at != end; ++at)
    found.push_back((*at)[1]);
  return found;
}

// The text from the first line that begins with `begin` to the next one that begins with `next`.
std::string part_of(const std::string& text, const std::string& begin, const std::string& next) {
  const size_t at = text.find("\n" + begin);
  EXPECT_NE(at, std::string::npos) << begin;
  if (at == std::string::npos) return "";
  return text.substr(at, text.find("\n" + next, at + 1) - at);
}

class ShellFilesTest : public CliTest {
 protected:
  std::string said(const std::string& arguments) {
    const Outcome outcome = longstride(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out;
  }
  std::vector<std::string> commands() {
    const std::string help = said("--help");
    return all_of(help.substr(help.find("Subcommands:")), "\n  ([a-z]+)  ");
  }
  std::vector<std::string> options(const std::string& command) {
    return all_of(said(command + " --help"), "\n  (?:-[a-z],)?(--[a-z0-9-]+)");
  }
  // What bash offers for the last of `words`.
  std::string offered(const std::string& words) {
    write(
        "complete.sh",
        "source ./bash\nCOMP_WORDS=(" + words +
            ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_longstride 2>/dev/null\necho \"${COMPREPLY[*]}\"\n");
    const std::string command = "cd " + folder_.path() + " && bash complete.sh >offered";
    EXPECT_EQ(std::system(command.c_str()), 0);
    return read_bytes(folder_ / "offered");
  }
};

TEST_F(ShellFilesTest, TheManualHasEveryCommandAndOption) {
  const std::string page = said("man");
  ASSERT_GE(commands().size(), 7u);
  for (const std::string& command : commands()) {
    const std::string section = part_of(page, ".SS " + command, ".S");
    EXPECT_THAT(section, testing::HasSubstr("longstride " + command));
    ASSERT_GE(options(command).size(), 3u);
    for (const std::string& option : options(command))
      EXPECT_THAT(section,
                  testing::HasSubstr("\\fB" + std::regex_replace(option, std::regex("-"), "\\-") + "\\fR"))
          << command;
  }
  EXPECT_THAT(part_of(page, ".SH CONFIGURATION", ".SH"), testing::HasSubstr("train.learning_rate"));
  EXPECT_THAT(part_of(page, ".SS train", ".S"), testing::Not(testing::HasSubstr("train.learning_rate")));
}

TEST_F(ShellFilesTest, CompletionsHaveEveryCommandAndOption) {
  const std::string zsh = said("completions zsh"), fish = said("completions fish");
  write("bash", said("completions bash"));
  for (const std::string& command : commands()) {
    EXPECT_EQ(offered("longstride " + command), command + "\n");
    EXPECT_THAT(zsh, testing::HasSubstr("\n    '" + command + ":"));
    EXPECT_THAT(fish, testing::HasSubstr(" -a " + command + " "));
    const std::string in_zsh = part_of(zsh, "      " + command + ")", "      _none");
    const std::string before_next = in_zsh.substr(0, in_zsh.find(" ;;"));
    for (const std::string& option : options(command)) {
      const std::string known = offered("longstride " + command + " " + option);
      EXPECT_THAT(known, testing::ContainsRegex("(^| )" + option + "[ \n]"));
      EXPECT_THAT(before_next, testing::HasSubstr(option + "["));
      EXPECT_THAT(fish, testing::ContainsRegex("from " + command + "'[^\n]* -l " + option.substr(2) + " "));
    }
  }
}

TEST_F(ShellFilesTest, BashCompletesValues) {
  write("bash", said("completions bash"));
  EXPECT_EQ(offered("longstride sample runs/x --weights ''"), "auto int8\n");
  EXPECT_EQ(offered("longstride train x --set train.ste"), "train.steps=\n");
  EXPECT_EQ(offered("longstride --ver"), "--version\n");
  // bash itself completes names of files.
  EXPECT_EQ(offered("longstride eval runs"), "\n");
}

TEST_F(ShellFilesTest, TheHelpShowsNeitherAndOtherShellsAreRefused) {
  EXPECT_THAT(said("--help"), testing::Not(testing::HasSubstr("completions")));
  expect_complaint(longstride("completions tcsh"), 2, {"tcsh", "bash"});
  expect_complaint(longstride("completions"), 2, {"shell"});
}

}  // namespace
}  // namespace longstride
