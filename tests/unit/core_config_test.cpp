#include "core/config.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"

namespace tessera {
namespace {

Config parse(std::string_view text) { return Config::parse(text, "config.json"); }

/// The message of the Kind of error that `action` throws.
template <class Kind, class Action>
std::string message(Action action) {
  try {
    action();
  } catch (const Kind& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another kind of exception: ") + error.what();
  }
  return "no exception";
}

std::string format_error(std::string_view text, std::string_view key) {
  return message<FormatError>([&] { parse(text).integer(key); });
}

TEST(Config, ReadsValuesOfEveryType) {
  const Config c = parse(
      R"({"i": -3, "f": 1e-5, "b": true, "s": "gelu", "list": [1, 2.0, 3], "names": ["a", "b"],
          "sub": {"deep": {"x": 7}}})");
  EXPECT_EQ(c.integer("i"), -3);
  EXPECT_EQ(c.number("i"), -3.0);
  EXPECT_EQ(c.number("f"), 1e-5);
  EXPECT_TRUE(c.boolean("b", false));
  EXPECT_EQ(c.string("s"), "gelu");
  EXPECT_EQ(c.integers("list"), (std::vector<std::int64_t>{1, 2, 3}));
  EXPECT_EQ(c.numbers("list"), (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(c.strings("names"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(c.at("sub").at("deep").integer("x"), 7);
  EXPECT_EQ(c.child("sub").child("deep").where(), "config.json: sub.deep");
  EXPECT_EQ(c.at("list")[1].as_integer(), 2);
  EXPECT_EQ(c.at("list")[1].where(), "config.json: list[1]");
}

TEST(Config, AbsentAndNullGiveTheFallback) {
  const Config c = parse(R"({"n": null})");
  for (const char* key : {"n", "absent"}) {
    EXPECT_FALSE(c.has(key));
    EXPECT_EQ(c.integer(key, 5), 5);
    EXPECT_EQ(c.number(key, 0.5), 0.5);
    EXPECT_TRUE(c.boolean(key, true));
    EXPECT_EQ(c.string(key, "x"), "x");
    EXPECT_TRUE(c.integers(key).empty());
    EXPECT_EQ(c.child(key).size(), 0u);
    EXPECT_EQ(c.child(key).integer("k", 4), 4);
    EXPECT_EQ(message<FormatError>([&] { c.integer(key); }),
              std::string("config.json: ") + key + ": is missing");
    EXPECT_THROW(c.at(key), FormatError);
  }
  EXPECT_EQ(message<FormatError>([&] { c.child("sub").child("deep").integer("x"); }),
            "config.json: sub.deep.x: is missing");
  EXPECT_EQ(Config().size(), 0u);
}

TEST(Config, OneValueCountsAsAListOfOne) {
  const Config c = parse(R"({"eos_token_id": 50256, "name": "x"})");
  EXPECT_EQ(c.integers("eos_token_id"), (std::vector<std::int64_t>{50256}));
  EXPECT_EQ(c.strings("name"), (std::vector<std::string>{"x"}));
}

TEST(Config, MessagesNameFileKeyExpectedAndFound) {
  const Config c = parse(R"({"vision_config": {"hidden_size": "768", "sizes": [1, "x"]}})");
  const Config vision = c.at("vision_config");
  EXPECT_EQ(message<FormatError>([&] { vision.integer("hidden_size", 1); }),
            "config.json: vision_config.hidden_size: expected an integer, found a string");
  EXPECT_EQ(message<FormatError>([&] { vision.integers("sizes"); }),
            "config.json: vision_config.sizes[1]: expected an integer, found a string");
  EXPECT_EQ(message<FormatError>([&] { c.string("vision_config"); }),
            "config.json: vision_config: expected a string, found an object");
  EXPECT_EQ(message<FormatError>([&] { vision.child("sizes"); }),
            "config.json: vision_config.sizes: expected an object, found an array");
  EXPECT_EQ(message<FormatError>([&] { vision.at("sizes")[0].integer("x"); }),
            "config.json: vision_config.sizes[0]: expected an object, found an integer");
  EXPECT_THROW(vision.at("sizes")[2], FormatError);
}

TEST(Config, IntegersAreExactAndInRange) {
  EXPECT_EQ(parse(R"({"n": 224.0})").integer("n"), 224);
  EXPECT_EQ(parse(R"({"n": 1e3})").integer("n"), 1000);
  EXPECT_EQ(parse(R"({"n": 9223372036854775807})").integer("n"), INT64_MAX);
  EXPECT_EQ(parse(R"({"n": -9223372036854775808})").integer("n"), INT64_MIN);
  EXPECT_EQ(format_error(R"({"n": 0.5})", "n"),
            "config.json: n: expected an integer, found a number (0.5)");
  for (const char* text : {R"({"n": 9223372036854775808})", R"({"n": 18446744073709551616})",
                           R"({"n": -9223372036854775809})"}) {
    EXPECT_NE(format_error(text, "n").find("n: the integer"), std::string::npos) << text;
  }
  EXPECT_NE(format_error(R"({"n": 1e300})", "n").find("expected an integer"), std::string::npos);
  EXPECT_EQ(parse(R"({"n": 18446744073709551616})").number("n"), 18446744073709551616.0);
}

TEST(Config, BoundedChecksTheRange) {
  const Config c = parse(R"({"n": 12})");
  EXPECT_EQ(c.bounded("n", 1, 1, 12), 12);
  EXPECT_EQ(c.bounded("absent", 3, 1, 12), 3);
  EXPECT_EQ(message<FormatError>([&] { c.bounded("n", 1, 1, 11); }),
            "config.json: n: expected a number from 1 to 11, found 12");
  EXPECT_THROW(c.bounded("n", 1, 13, 20), FormatError);
}

TEST(Config, KeepsTheOrderOfKeys) {
  const Config c = parse(R"({"z": 1, "a": 2, "m": 3})");
  EXPECT_EQ(c.keys(), (std::vector<std::string>{"z", "a", "m"}));
  ASSERT_EQ(c.size(), 3u);
  EXPECT_EQ(c[1].as_integer(), 2);
  EXPECT_EQ(c[1].where(), "config.json: a");
  EXPECT_EQ(c.dump(), R"({"z":1,"a":2,"m":3})");
}

TEST(Config, OfARepeatedKeyTheLastValueCounts) {
  const Config c = parse(R"({"a": 1, "b": 2, "a": 3})");
  EXPECT_EQ(c.integer("a"), 3);
  EXPECT_EQ(c.keys(), (std::vector<std::string>{"a", "b"}));
}

TEST(Config, TellsWhatAPlaceIs) {
  const Config c = parse(R"([1, 1.5, true, "s", [], {}])");
  ASSERT_TRUE(c.is_array());
  EXPECT_TRUE(c[0].is_number());
  EXPECT_TRUE(c[1].is_number());
  EXPECT_TRUE(c[2].is_boolean());
  EXPECT_TRUE(c[3].is_string());
  EXPECT_TRUE(c[4].is_array());
  EXPECT_TRUE(c[5].is_object());
  EXPECT_FALSE(c[3].is_number());
  EXPECT_EQ(c[1].as_number(), 1.5);
  EXPECT_TRUE(c[2].as_boolean());
  EXPECT_EQ(c[3].as_string(), "s");
  EXPECT_THROW(c[3].as_boolean(), FormatError);
  EXPECT_FALSE(c.has("x"));
}

TEST(Config, DumpsWhatItRead) {
  const char* text = R"({"a":[1,2.5,null,true,"q\"\n"],"b":{},"c":[]})";
  EXPECT_EQ(parse(text).dump(), text);
}

TEST(Config, RefusesMalformedText) {
  for (const char* text : {"", "{", "{\"a\": }", "[1, 2", "{\"a\": NaN}", "{\"a\": Infinity}",
                           "{\"a\": 1e999}", "{} x", "\"\xff\"", "{\"a\" 1}"}) {
    const std::string what = message<FormatError>([&] { parse(text); });
    EXPECT_EQ(what.rfind("config.json: not valid JSON: ", 0), 0u) << text << ": " << what;
  }
}

TEST(Config, AZeroByteIsNotTheEnd) {
  using namespace std::string_view_literals;
  for (const std::string_view text : {"{}\0"sv, "{}\0{\"a\": 1}"sv, "\0"sv, "{\"a\": \"\0\"}"sv}) {
    const std::string what = message<FormatError>([&] { parse(text); });
    EXPECT_EQ(what.rfind("config.json: not valid JSON: a zero byte at byte ", 0), 0u) << what;
  }
}

TEST(Config, MessagesStayShort) {
  const std::string text = "{\"a\": \"" + std::string(100000, 'x');
  EXPECT_LT(message<FormatError>([&] { parse(text); }).size(), 500u);
}

TEST(Config, LimitsTheDepth) {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']');
  };
  EXPECT_TRUE(parse(nested(64)).is_array());
  EXPECT_THROW(parse(nested(65)), FormatError);
  EXPECT_THROW(parse(std::string(1000000, '[')), FormatError);
}

TEST(Config, ManyKeysAreFast) {
  std::string text = "{\"k\": 0";
  for (int i = 0; i < 200000; ++i) text += concat(", \"k", i, "\": ", i);
  const Config c = parse(text + "}");
  EXPECT_EQ(c.size(), 200001u);
  for (int i = 0; i < 200000; ++i) ASSERT_EQ(c.integer(concat("k", i)), i);
}

TEST(Config, ReadsFilesAndNamesThem) {
  const auto folder = std::filesystem::path(TESSERA_SOURCE_DIR "/tests/data/families");
  EXPECT_EQ(Config::read(folder / "gpt2-base" / "config.json").string("model_type"), "gpt2");
  const auto absent = folder / "absent.json";
  EXPECT_NE(message<IoError>([&] { Config::read(absent); }).find(absent.string()),
            std::string::npos);
  EXPECT_THROW(Config::read(folder), IoError);
}

}  // namespace
}  // namespace tessera
