#include <algorithm>
#include <array>
#include <cctype>
#include <limits>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/pattern/pattern.h"
#include "longstride/pattern/terms/table.h"

namespace longstride {

namespace {

constexpr int64_t kMaxNumber = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxCycle = 65536;    // layers in a cycle, so that a typo in *count cannot fill the memory
constexpr int64_t kMaxGroups = 262144;  // patterns of heads in all layers of a cycle, likewise

// A name in a pattern: a kind of term, or a preset of several kinds. A preset's numbers are those of its
// last kind. Each kind takes as many of them, from the first on, as it has.
struct Name {
  std::string_view text;
  std::vector<TermKind> kinds;
  std::vector<terms::Number> numbers;

  std::string usage() const {
    std::string usage(text);
    for (size_t i = 0; i < numbers.size(); ++i)
      usage += fmt::format("{}{}{}{}", numbers[i].optional ? "[" : "", i == 0 ? ":" : ",", numbers[i].name,
                           numbers[i].optional ? "]" : "");
    return usage;
  }
};

const terms::Entry& entry_of(TermKind kind) { return terms::table()[static_cast<size_t>(kind)]; }

Name preset(std::string_view text, std::vector<TermKind> kinds) {
  Name name{text, std::move(kinds), {}};
  for (const terms::Number& number : entry_of(name.kinds.back()).numbers)
    if (!number.optional) name.numbers.push_back(number);
  return name;
}

const std::vector<Name>& names() {
  static const std::vector<Name> all = [] {
    std::vector<Name> list;
    for (const terms::Entry& entry : terms::table())
      list.push_back({entry.name, {entry.kind}, {entry.numbers.begin(), entry.numbers.end()}});
    list.push_back(preset("strided", {TermKind::window, TermKind::stride}));
    list.push_back(preset("fixed", {TermKind::block, TermKind::summary}));
    list.push_back(preset("spread-fixed", {TermKind::block, TermKind::spread_summary}));
    return list;
  }();
  return all;
}

std::string known_names() {
  std::string list;
  for (const Name& name : names()) list += fmt::format("{}{}", list.empty() ? "" : ", ", name.text);
  return list;
}

// Reads the text from left to right; every message quotes all of it.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Schedule schedule() {
    refuse_empty();
    Schedule schedule;
    int64_t groups = 0;
    do {
      const LayerPattern layer = this->layer();
      const int64_t times = accept('*') ? repeat_count() : 1;
      if (static_cast<int64_t>(schedule.cycle.size()) + times > kMaxCycle)
        complain("a cycle may have at most {} layers", kMaxCycle);
      groups += times * static_cast<int64_t>(layer.groups.size());
      if (groups > kMaxGroups)
        complain("the layers of a cycle may have at most {} patterns of heads together", kMaxGroups);
      schedule.cycle.insert(schedule.cycle.end(), static_cast<size_t>(times), layer);
    } while (accept(','));
    expect_end("'+' and a term, '|' and another head's pattern, '*' and a count, or ',' and a layer");
    return schedule;
  }

  Pattern only_pattern() {
    refuse_empty();
    const Pattern pattern = this->pattern();
    const char next = peek();
    part_ = at_;
    if (next == '|' || next == '*' || next == ',')
      complain("'{}' makes it a schedule of layers, but one pattern is wanted here", next);
    expect_end("'+' and a further term");
    return pattern;
  }

 private:
  // An error in the text from part_ to at_, or in what is missing there.
  template <class... Args>
  [[noreturn]] void complain(fmt::format_string<Args...> format, Args&&... args) const {
    throw PatternError(
        fmt::format("pattern '{}': {}", text_, fmt::format(format, std::forward<Args>(args)...)), text_,
        part_, at_);
  }

  void refuse_empty() const {
    if (trim(text_).empty())
      throw PatternError(
          fmt::format("pattern '{}' is empty; write a term such as window:256, or dense. Known names: {}",
                      text_, known_names()),
          text_, 0, 0);
  }

  LayerPattern layer() {
    LayerPattern layer;
    do layer.groups.push_back(pattern());
    while (accept('|'));
    return layer;
  }

  Pattern pattern() {
    Pattern pattern;
    do term(pattern);
    while (accept('+'));
    return pattern;
  }

  // One name with its numbers; a preset adds two terms.
  void term(Pattern& pattern) {
    const std::string_view word = read_name();
    const auto found =
        std::find_if(names().begin(), names().end(), [&](const Name& n) { return n.text == word; });
    if (found == names().end()) unknown(word);
    const size_t begin = part_;
    const std::vector<int64_t> numbers = read_numbers(*found);
    part_ = begin;
    check_ranges(*found, numbers);
    for (const TermKind kind : found->kinds) add(pattern, term_of(kind, numbers));
  }

  // The term of this kind. It takes as many of `numbers`, from the first on, as the kind has.
  static Term term_of(TermKind kind, const std::vector<int64_t>& numbers) {
    Term term{kind};
    const auto fields = entry_of(kind).numbers;
    for (size_t i = 0; i < std::min(fields.size(), numbers.size()); ++i) term.*fields[i].field = numbers[i];
    return term;
  }

  void add(Pattern& pattern, const Term& term) const {
    const bool known =
        std::find(pattern.terms, pattern.terms + pattern.count, term) != pattern.terms + pattern.count;
    if (!known && pattern.count == kMaxTerms)
      complain("a pattern may have at most {} terms (strided and fixed are two each)", kMaxTerms);
    pattern.add(term);
  }

  std::string_view read_name() {
    skip_space();
    const size_t begin = part_ = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '-' || text_[at_] == '_'))
      ++at_;
    if (at_ == begin) {
      const std::string before =
          begin == 0 ? "at the beginning" : fmt::format("after '{}'", trim(text_.substr(0, begin)));
      if (begin == text_.size()) complain("ends {} where a name should follow", before);
      complain("a name should stand {}, not '{}'", before, text_.substr(begin));
    }
    return text_.substr(begin, at_ - begin);
  }

  [[noreturn]] void unknown(std::string_view word) const {
    if (std::isdigit(static_cast<unsigned char>(word[0])))
      complain("a name should stand where '{}' is", word);
    std::vector<std::string> candidates;
    for (const Name& name : names()) candidates.emplace_back(name.text);
    const std::string guess = nearest(word, candidates);
    if (guess.empty()) complain("unknown name '{}'; known are {}", word, known_names());
    complain("unknown name '{}', did you mean '{}'? Known are {}", word, guess, known_names());
  }

  std::vector<int64_t> read_numbers(const Name& name) {
    std::vector<int64_t> numbers;
    if (accept(':')) {
      if (name.numbers.empty()) complain("{} takes no numbers", name.text);
      do {
        if (numbers.size() == name.numbers.size())
          complain("'{}' has too many numbers, it is written {}", name.text, name.usage());
        numbers.push_back(read_number(fmt::format("{}'s {}", name.text, name.numbers[numbers.size()].name)));
      } while (accept_comma_before_number());
    }
    if (numbers.size() < name.numbers.size() && !name.numbers[numbers.size()].optional)
      complain("'{}' has {} number{}, it is written {}", name.text, numbers.empty() ? "no" : "only 1",
               numbers.empty() ? "s" : "", name.usage());
    return numbers;
  }

  int64_t read_number(const std::string& what) {
    skip_space();
    const size_t begin = part_ = at_;
    if (peek() == '-') ++at_;
    const size_t digits = at_;
    while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) ++at_;
    const size_t end = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '.' || text_[at_] == '_'))
      ++at_;
    const std::string_view number = text_.substr(begin, at_ - begin);
    if (digits == end || end != at_) {
      if (number.empty()) complain("{} is missing, an integer from 0 to {}", what, kMaxNumber);
      complain("{} should be an integer, not '{}'", what, number);
    }
    int64_t value = 0;
    for (size_t i = digits; i < end; ++i) {
      value = value * 10 + (text_[i] - '0');
      if (value > kMaxNumber)
        complain("{} = {} is too large, at most {} is possible", what, number, kMaxNumber);
    }
    return digits == begin ? value : -value;
  }

  int64_t repeat_count() {
    const int64_t times = read_number("the count after '*'");
    if (times < 1 || times > kMaxCycle)
      complain("the count after '*' must be from 1 to {}, here {}", kMaxCycle, times);
    return times;
  }

  void check_ranges(const Name& name, const std::vector<int64_t>& numbers) const {
    const Term term = term_of(name.kinds.back(), numbers);
    std::string letters, values;  // "l,c" and "l = 8, c = 9", of the numbers so far
    for (size_t i = 0; i < numbers.size(); ++i) {
      const terms::Number& number = name.numbers[i];
      const char* separator = i == 0 ? "" : ",";
      letters += fmt::format("{}{}", separator, number.name);
      const int64_t most = number.most == nullptr ? kMaxNumber : number.most(term);
      if (numbers[i] >= number.least && numbers[i] <= most) {
        values += fmt::format("{}{} = {}", i == 0 ? "" : ", ", number.name, numbers[i]);
        continue;
      }
      if (number.rule == nullptr)
        complain("{}:{}: {} must be at least {}", name.text, fmt::join(numbers, ","), number.name,
                 number.least);
      const std::string wrong =
          number.says_most ? fmt::format("so {} is at most {}, not {}", number.name, most, numbers[i])
                           : fmt::format("{} = {}", number.name, numbers[i]);
      complain("{}:{} needs {}, here {}, {}", name.text, letters, number.rule, values, wrong);
    }
  }

  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  // The next character that is no space, or 0 at the end.
  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  // A comma before a digit continues the same term. Before a letter it opens a layer, and is left unread.
  bool accept_comma_before_number() {
    if (peek() != ',') return false;
    const size_t next = text_.find_first_not_of(" \t\r\n", at_ + 1);
    if (next == std::string_view::npos ||
        !(std::isdigit(static_cast<unsigned char>(text_[next])) || text_[next] == '-'))
      return false;
    ++at_;
    return true;
  }
  void expect_end(std::string_view wanted) {
    if (peek() == '\0' && at_ == text_.size()) return;
    part_ = at_;
    complain("'{}' does not belong after '{}'; there may follow {}", text_.substr(at_),
             trim(text_.substr(0, at_)), wanted);
  }

  std::string_view text_;
  size_t at_ = 0, part_ = 0;  // where it reads, and where the present part begins
};

std::string to_string(const Term& term) {
  const terms::Entry& entry = entry_of(term.kind);
  std::string text = entry.name;
  for (size_t i = 0; i < entry.numbers.size(); ++i) {
    const terms::Number& number = entry.numbers[i];
    if (number.optional && term.*number.field == 0) break;
    text += fmt::format("{}{}", i == 0 ? ":" : ",", term.*number.field);
  }
  return text;
}

}  // namespace

namespace {

// The message quotes the text, which may have any bytes.
std::string without_newlines(const std::string& message) {
  std::string line;
  for (const char c : message) line += c == '\n' ? std::string("\\x0a") : std::string(1, c);
  return line;
}

}  // namespace

PatternError::PatternError(const std::string& message, std::string_view text, size_t begin, size_t end)
    : Error(without_newlines(message)), text_(text), begin_(begin), end_(end) {}

std::string PatternError::with_caret() const {
  constexpr size_t kLongest = 100;
  const bool plain = text_.size() <= kLongest && std::all_of(text_.begin(), text_.end(), [](unsigned char c) {
                       return c >= ' ' && c < 0x7f;
                     });
  if (!plain) return what();
  const size_t width = end_ > begin_ ? end_ - begin_ : 1;
  return fmt::format("{}\n  {}\n  {}{}", what(), text_, std::string(begin_, ' '), std::string(width, '^'));
}

void Pattern::add(const Term& term) {
  if (std::find(terms, terms + count, term) != terms + count) return;
  LONGSTRIDE_CHECK(count < kMaxTerms, "a pattern may have at most {} terms", kMaxTerms);
  terms[count++] = term;
}

Pattern Pattern::for_head(int64_t head) const {
  LONGSTRIDE_CHECK(head >= 0, "head is {}, must not be negative", head);
  Pattern resolved;
  for (int t = 0; t < count; ++t) {
    const Term& term = terms[t];
    resolved.add(terms::visit(term.kind, [&](auto kind) { return decltype(kind)::for_head(term, head); }));
  }
  return resolved;
}

bool Pattern::operator==(const Pattern& other) const {
  return std::equal(terms, terms + count, other.terms, other.terms + other.count);
}

Pattern LayerPattern::for_head(int64_t head, int64_t heads) const {
  const auto group_count = static_cast<int64_t>(groups.size());
  LONGSTRIDE_CHECK(head >= 0 && head < heads, "head is {}, must be from 0 to {}", head, heads - 1);
  LONGSTRIDE_CHECK(group_count > 0 && heads % group_count == 0, "{} heads cannot share {} patterns equally",
                   heads, group_count);
  return groups[static_cast<size_t>(head / (heads / group_count))].for_head(head);
}

Pattern parse_pattern(std::string_view text) { return Parser(text).only_pattern(); }

Schedule parse_schedule(std::string_view text) { return Parser(text).schedule(); }

std::string to_string(const Pattern& pattern) {
  std::vector<std::string> terms;
  for (int t = 0; t < pattern.count; ++t) terms.push_back(to_string(pattern.terms[t]));
  return fmt::format("{}", fmt::join(terms, "+"));
}

std::string to_string(const LayerPattern& layer) {
  std::vector<std::string> groups;
  for (const Pattern& group : layer.groups) groups.push_back(to_string(group));
  return fmt::format("{}", fmt::join(groups, "|"));
}

std::string to_string(const Schedule& schedule) {
  std::vector<std::string> layers;
  for (size_t begin = 0, end = 0; begin < schedule.cycle.size(); begin = end) {
    while (end < schedule.cycle.size() && schedule.cycle[end] == schedule.cycle[begin]) ++end;
    layers.push_back(to_string(schedule.cycle[begin]));
    if (end - begin > 1) layers.back() += fmt::format("*{}", end - begin);
  }
  return fmt::format("{}", fmt::join(layers, ","));
}

void check_heads(const Schedule& schedule, int64_t heads) {
  LONGSTRIDE_CHECK(heads >= 1, "heads is {}, must be at least 1", heads);
  for (const LayerPattern& layer : schedule.cycle) {
    const auto groups = static_cast<int64_t>(layer.groups.size());
    LONGSTRIDE_CHECK(
        groups > 0 && heads % groups == 0,
        "layer '{}' has {} patterns, which {} heads cannot share equally; take a multiple of {} heads",
        to_string(layer), groups, heads, groups);
  }
}

}  // namespace longstride
