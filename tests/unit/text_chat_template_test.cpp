// Where chat templates are found, and what hostile ones can't do.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "core/error.h"
#include "temporary_folder.h"

namespace tessera::text {
namespace {

std::string rendered(const std::string& source) {
  Conversation c;
  c.messages.push_back(Config::parse(R"({"role": "user", "content": "Hi"})", "test"));
  return ChatTemplate::parse(source, "t.jinja").render(c, {{"bos_token", "<s>"}}).text;
}

/// What a template is refused for, soon.
std::string refusal(const std::string& source) {
  const auto start = std::chrono::steady_clock::now();
  std::string message = "nothing";
  try {
    rendered(source);
  } catch (const FormatError& error) {
    message = error.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << source;
  return message;
}

std::string repeated(const std::string& part, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += part;
  return out;
}

TEST(ChatTemplate, IsFoundWhereCheckpointsKeepIt) {
  const testing::TemporaryFolder temporary;
  const auto write = [&](const char* name, const std::string& text) {
    std::ofstream(temporary.path / name) << text;
  };
  const auto source = [&] { return ChatTemplate::of_checkpoint(temporary.path)->source(); };
  EXPECT_FALSE(ChatTemplate::of_checkpoint(temporary.path));
  write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  EXPECT_FALSE(ChatTemplate::of_checkpoint(temporary.path));
  write("tokenizer_config.json", R"({"chat_template": "{{ bos_token }}a"})");
  EXPECT_EQ(source(), "{{ bos_token }}a");
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "{{ tools[0] }}"},
                              {"name": "default", "template": "b"}]})");
  EXPECT_EQ(source(), "b");
  Conversation c;
  EXPECT_EQ(ChatTemplate::of_checkpoint(temporary.path)->render(c, {}).text, "b");
  c.tools = Config::parse(R"(["wrench"])", "test");
  EXPECT_EQ(ChatTemplate::of_checkpoint(temporary.path)->render(c, {}).text, "wrench");
  EXPECT_TRUE(ChatTemplate::of_checkpoint(temporary.path)->knows_tools());
  write("chat_template.jinja", "c");
  EXPECT_EQ(source(), "c");
  EXPECT_FALSE(ChatTemplate::of_checkpoint(temporary.path)->knows_tools());
  write("chat_template.jinja", "{% if %}");
  EXPECT_THROW(ChatTemplate::of_checkpoint(temporary.path), FormatError);
  std::filesystem::remove(temporary.path / "chat_template.jinja");
  for (const char* wrong : {R"({"chat_template": 5})", R"({"chat_template": []})",
                            R"({"chat_template": [{"name": "x", "template": "y"}]})",
                            R"({"chat_template": [{"name": "default"}]})"}) {
    write("tokenizer_config.json", wrong);
    EXPECT_THROW(ChatTemplate::of_checkpoint(temporary.path), FormatError) << wrong;
  }
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  EXPECT_EQ(refusal("a\n{{ nope.x }}"), "t.jinja:2: 'nope' is undefined, and has no 'x'");
  EXPECT_EQ(refusal("{%- if true -%}\n\n{{ raise_exception('No ' ~ 1) }}{% endif %}"),
            "t.jinja:3: the template says: No 1");
  EXPECT_EQ(refusal("\n{% for x in [] %}"), "t.jinja:2: {% endfor %} is missing");
  EXPECT_EQ(refusal("{{ 1 + }}"), "t.jinja:1: expected an expression, found the end of the tag");
  EXPECT_EQ(refusal("\n\n{{ 'a"), "t.jinja:3: a string is not closed");
  EXPECT_EQ(refusal("{# a"), "t.jinja:1: a comment {# is not closed by #}");
  EXPECT_EQ(refusal("{{ 'a' + nope }}"),
            "t.jinja:1: a string + 'nope', which is undefined, can't be computed");
  EXPECT_EQ(refusal("{{ 1|shout }}"), "t.jinja:1: the filter 'shout' is not known here");
  EXPECT_EQ(refusal("{% include 'x' %}"), "t.jinja:1: {% include %} is not known here");
  EXPECT_EQ(refusal("{% raw %}{{"), "t.jinja:1: {% raw %} is not closed by {% endraw %}");
  EXPECT_EQ(refusal("{{ 99999999999999999999 }}"),
            "t.jinja:1: 99999999999999999999 is out of range");
  EXPECT_EQ(refusal("{{ 9223372036854775807 + 1 }}"), "t.jinja:1: a number beyond 64 bits");
}

TEST(ChatTemplate, NothingRunsAway) {
  const std::vector<std::pair<std::string, const char*>> all = {
      {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "1"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself"},
      {"{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
       "{% endfor %}",
       "256 MiB"},
      {"{{ 'a' * 99999999999 }}", "256 MiB"},
      {"{{ [1] * 99999999999 }}", "256 MiB"},
      {"{% set a = 'a' * 9999999 %}{% set b = 'a' * 999999 ~ 'b' %}{{ b in a }}", "too many steps"},
      {"{% set a = 'a' * 999999 %}{% for i in range(99999) %}{{ a|upper }}{% endfor %}",
       "too many steps"},
      {"{% set ns = namespace(x=[]) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}"
       "{{ ns.x }}",
       "nested too deep"},
      {"{% set ns = namespace(x=[]) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}"
       "{{ ns.x == [ns.x] }}",
       "nested too deep"},
      {"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}"
       "{% endfor %}{{ ns.x|tojson }}",
       "too many steps"},
      {"{% set ns = namespace() %}{% set ns.me = [ns] %}{{ ns.me|tojson }}", "can't be written"},
      {"{{ 1" + repeated(" + 1", 5000) + " }}", "calls itself"},
      {"{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}", "nested too deep"},
      {"{{ " + repeated("-", 5000) + "1 }}", "nested too deep"},
      {"{{ " + repeated("not ", 5000) + "1 }}", "nested too deep"},
      {"{{ x" + repeated("[0]", 5000) + " }}", "calls itself"},
      {repeated("{% if true %}", 5000), "nested too deep"},
      {"{% raw %}" + repeated("{% ", 100000), "endraw"},
      {repeated("{# ", 100000), "not closed"},
      {"{{ 'x'|indent(999999999999) }}", "256 MiB"},
      {"{{ {'a': 1}|tojson(indent=' ' * 99999999)|length }}{{ [[[[[1]]]]]|tojson(indent=' ' * "
       "99999999) }}",
       "MiB"},
      {"{{ strftime_now('%999999999d') }}", "strftime_now"},
      {repeated("a", (1 << 20) + 1), "bytes"},
  };
  for (const auto& [source, expected] : all)
    EXPECT_NE(refusal(source).find(expected), std::string::npos) << source.substr(0, 100) << "\n"
                                                                 << refusal(source);
}

TEST(ChatTemplate, BytesThatAreNoTextAreRepaired) {
  EXPECT_EQ(rendered("a\xFF{{ '\xC3' }}"), "a\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(rendered(""), "");
  EXPECT_EQ(rendered(std::string("a\0b", 3)), std::string("a\0b", 3));
  EXPECT_EQ(rendered("{{ bos_token }}\r\n\r{{ messages[0].content }}\n"), "<s>\n\nHi");
}

TEST(ChatTemplate, ChatmlIsBuiltIn) {
  EXPECT_EQ(rendered(ChatTemplate::chatml()), "<|im_start|>user\nHi<|im_end|>\n");
}

}  // namespace
}  // namespace tessera::text
