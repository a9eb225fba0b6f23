#include "core/weights.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/error.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

using Strings = std::vector<std::string>;

/// A fresh directory per test, removed afterwards.
class WeightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = fs::temp_directory_path() /
           (std::string("tessera-") + info->name() + "-" + std::to_string(::getpid()));
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  fs::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return dir_ / name;
  }
  /// A safetensors file of this header and so many zero bytes.
  fs::path write_header(const std::string& header, std::size_t data_bytes,
                        const std::string& name = "model.safetensors") const {
    return write(name, length_prefix(header.size()) + header + std::string(data_bytes, '\0'));
  }
  static std::string length_prefix(std::uint64_t length) {
    std::string bytes(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i) & 0xff);
    return bytes;
  }
  Strings files() const {
    Strings names;
    for (const auto& item : fs::directory_iterator(dir_))
      names.push_back(item.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  fs::path dir_;
};

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

void expect_contains(const std::string& text, const Strings& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
}

Tensor filled(const Shape& shape, DType type) {
  Tensor t = Tensor::empty(shape, type);
  auto* bytes = static_cast<unsigned char*>(t.raw());
  for (std::size_t i = 0; i < t.nbytes(); ++i) bytes[i] = static_cast<unsigned char>(i * 37 + 11);
  return t;
}

TEST_F(WeightsTest, WritesAndReadsEveryType) {
  const std::vector<NamedTensor> saved{
      {"f32", filled({3, 5}, DType::f32)},   {"f16", filled({7}, DType::f16)},
      {"bf16", filled({1, 3}, DType::bf16)}, {"i8", filled({17}, DType::i8)},
      {"u8", filled({2, 2, 2}, DType::u8)},  {"i32", filled({3}, DType::i32)},
      {"i64", filled({2}, DType::i64)},      {"scalar", filled({}, DType::f32)},
      {"none", filled({0, 4}, DType::f32)}};
  save_safetensors(dir_ / "x.safetensors", saved);
  const Weights w = Weights::open(dir_ / "x.safetensors");
  EXPECT_EQ(w.names().size(), saved.size());
  for (const auto& [name, tensor] : saved) {
    const Tensor read = w.get(name, tensor.shape());
    EXPECT_EQ(read.dtype(), tensor.dtype()) << name;
    EXPECT_EQ(std::memcmp(read.raw(), tensor.raw(), tensor.nbytes()), 0) << name;
  }
  EXPECT_EQ(w.parameters(), 15 + 7 + 3 + 17 + 8 + 3 + 2 + 1);
  EXPECT_EQ(w.bytes(), 60 + 14 + 6 + 17 + 8 + 12 + 16 + 4);
  EXPECT_EQ(files(), Strings{"x.safetensors"});
}

TEST_F(WeightsTest, WritesWhatTheReferenceWrites) {
  // As safetensors.torch.save_file writes {"b": [[0, 1]], "a": int8 [1, 1, 1], "s": 2.5}.
  save_safetensors(dir_ / "x.safetensors", {{"a", Tensor::view("\1\1\1", DType::i8, {3}, nullptr)},
                                            {"s", Tensor::from(std::vector<float>{2.5f}, {})},
                                            {"b", Tensor::from(std::vector<float>{0, 1}, {1, 2})}});
  const std::string header = R"({"__metadata__":{"format":"pt"},)"
                             R"("b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
                             R"("s":{"dtype":"F32","shape":[],"data_offsets":[8,12]},)"
                             R"("a":{"dtype":"I8","shape":[3],"data_offsets":[12,15]}})";
  const std::size_t padding = (8 - header.size() % 8) % 8;
  const std::string expected = length_prefix(header.size() + padding) + header +
                               std::string(padding, ' ') +
                               std::string("\0\0\0\0\0\0\x80\x3f\0\0\x20\x40\1\1\1", 15);
  std::ifstream in(dir_ / "x.safetensors", std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), expected);
}

TEST_F(WeightsTest, SavesStridedTensorsAndReplacesFiles) {
  write("x.safetensors", "old");
  const Tensor whole = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  save_safetensors(dir_ / "x.safetensors", {{"t", whole.columns(1, 3)}});
  const Weights w = Weights::open(dir_ / "x.safetensors");
  EXPECT_EQ(w.get("t", {2, 2}).to_vector(), (std::vector<float>{2, 3, 5, 6}));
}

TEST_F(WeightsTest, SavingRefusesBadNames) {
  const Tensor t = Tensor::zeros({1});
  const auto file = dir_ / "x.safetensors";
  EXPECT_THROW(save_safetensors(file, {{"a", t}, {"a", t}}), ArgumentError);
  EXPECT_THROW(save_safetensors(file, {{"__metadata__", t}}), ArgumentError);
  EXPECT_THROW(save_safetensors(file, {{"a", Tensor()}}), ArgumentError);
  EXPECT_THROW(save_safetensors(file, {{"\xff", t}}), ArgumentError);
  EXPECT_THROW(save_safetensors(dir_ / "absent" / "x.safetensors", {{"a", t}}), IoError);
  EXPECT_TRUE(files().empty());
}

TEST_F(WeightsTest, FailedSavingLeavesNothingBehind) {
  write("x.safetensors", "old");
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = 1 << 16;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string what = message<IoError>([&] {
    save_safetensors(dir_ / "x.safetensors", {{"t", Tensor::zeros({1 << 16})}});
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  expect_contains(what, {"x.safetensors: can't be written"});
  EXPECT_EQ(files(), Strings{"x.safetensors"});
  EXPECT_EQ(fs::file_size(dir_ / "x.safetensors"), 3u);
}

TEST_F(WeightsTest, CursorsSeeTheirScope) {
  const Tensor t = Tensor::zeros({2});
  save_safetensors(dir_ / "model.safetensors", {{"layers.0.w", t},
                                                {"layers.1.w", t},
                                                {"layers.1.b", t},
                                                {"layers.10.w", t},
                                                {"layersx", t}});
  const Weights w = Weights::open(dir_);
  const Weights one = w.at("layers").at(1);
  EXPECT_EQ(one.names(), (Strings{"b", "w"}));
  EXPECT_EQ(one.parameters(), 4);
  EXPECT_EQ(one.bytes(), 16);
  EXPECT_TRUE(one.has("w"));
  EXPECT_FALSE(one.has("layers.1.w"));
  EXPECT_FALSE(w.has("layers"));
  EXPECT_EQ(w.at("nothing").names(), Strings{});
  const std::string file = (dir_ / "model.safetensors").string();
  EXPECT_EQ(one.where("w"), file + ": layers.1.w");
  EXPECT_EQ(one.where(), dir_.string() + ": layers.1");
  EXPECT_EQ(w.where(), dir_.string());
  one.get("w");
  EXPECT_EQ(w.leftovers(), (Strings{"layers.0.w", "layers.1.b", "layers.10.w", "layersx"}));
  w.at("layers").ignore("1");
  EXPECT_EQ(w.leftovers(), (Strings{"layers.0.w", "layersx"}));
  w.ignore("");
  EXPECT_EQ(one.leftovers(), Strings{});
}

TEST_F(WeightsTest, ComplaintsNameFileTensorAndShapes) {
  save_safetensors(dir_ / "model.safetensors", {{"a.w", Tensor::zeros({2, 3})}});
  const Weights w = Weights::open(dir_);
  expect_contains(message<ShapeError>([&] {
                    w.at("a").get("w", {3, 2});
                  }),
                  {"model.safetensors: a.w", "[3, 2]", "[2, 3]"});
  expect_contains(message<FormatError>([&] { w.at("a").get("v"); }), {dir_.string(), "a.v"});
}

TEST_F(WeightsTest, ViewsAreNotCopiedAndOutliveTheCursor) {
  save_safetensors(dir_ / "model.safetensors",
                   {{"t", Tensor::from(std::vector<float>{1, 2}, {2})}});
  Tensor t;
  {
    const Weights w = Weights::open(dir_);
    t = w.get("t");
    EXPECT_EQ(t.raw(), w.get("t").raw());
    w.release_pages();
  }
  fs::remove(dir_ / "model.safetensors");
  EXPECT_EQ(t.to_vector(), (std::vector<float>{1, 2}));
}

TEST_F(WeightsTest, CopiesWhatIsNotAligned) {
  const std::string header = R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  write("model.safetensors",
        length_prefix(header.size()) + header + std::string("\7\0\0\x80\x3f", 5));
  const Tensor f = Weights::open(dir_).get("f");
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(f.raw()) % 4, 0u);
  EXPECT_EQ(f.to_vector(), std::vector<float>{1});
}

TEST_F(WeightsTest, WidensToFloat) {
  Tensor half = Tensor::empty({2}, DType::f16), brain = Tensor::empty({2}, DType::bf16);
  half.data<std::uint16_t>()[0] = f32_to_f16(1.5f);
  half.data<std::uint16_t>()[1] = f32_to_f16(-0.25f);
  brain.data<std::uint16_t>()[0] = f32_to_bf16(3.0f);
  brain.data<std::uint16_t>()[1] = f32_to_bf16(-8.0f);
  save_safetensors(dir_ / "model.safetensors", {{"h", half}, {"b", brain}});
  const Weights w = Weights::open(dir_);
  EXPECT_EQ(w.get_f32("h", {2}).to_vector(), (std::vector<float>{1.5f, -0.25f}));
  EXPECT_EQ(w.get_f32("b", {2}).to_vector(), (std::vector<float>{3, -8}));
}

TEST_F(WeightsTest, MultipliesInt8RowsByTheirScales) {
  const Tensor weight = Tensor::view("\1\2\377\3\4\5", DType::i8, {2, 3}, nullptr);
  Tensor scales = Tensor::empty({2, 1}, DType::bf16);
  scales.data<std::uint16_t>()[0] = f32_to_bf16(0.5f);
  scales.data<std::uint16_t>()[1] = f32_to_bf16(2.0f);
  save_safetensors(dir_ / "model.safetensors",
                   {{"a.weight", weight}, {"a.weight_scale", scales}, {"b.weight", weight}});
  const Weights w = Weights::open(dir_);
  EXPECT_EQ(w.parameters(), 12);
  EXPECT_EQ(w.at("a").get("weight").dtype(), DType::i8);
  EXPECT_EQ(w.leftovers(), (Strings{"a.weight_scale", "b.weight"}));
  EXPECT_EQ(w.at("a").get_f32("weight", {2, 3}).to_vector(),
            (std::vector<float>{0.5f, 1, -0.5f, 6, 8, 10}));
  EXPECT_EQ(w.leftovers(), Strings{"b.weight"});
  expect_contains(message<FormatError>([&] {
                    w.at("b").get_f32("weight", {2, 3});
                  }),
                  {"b.weight", "weight_scale"});
}

TEST_F(WeightsTest, RefusesInt8WithZeroPoints) {
  const Tensor t = Tensor::zeros({2, 3}, DType::i8);
  save_safetensors(dir_ / "model.safetensors",
                   {{"weight", t}, {"weight_zero_point", Tensor::zeros({2, 1}, DType::i8)}});
  EXPECT_THROW(Weights::open(dir_).get("weight"), UnsupportedError);
}

TEST_F(WeightsTest, OtherTypesAndRanksAreListedButNotRead) {
  write_header(R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
               R"("e":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[8,10]},)"
               R"("n":{"dtype":"F128","shape":[1],"data_offsets":[10,26]},)"
               R"("r":{"dtype":"U8","shape":[1,1,1,1,1,1,1],"data_offsets":[26,27]}})",
               27);
  const Weights w = Weights::open(dir_);
  EXPECT_EQ(w.names(), (Strings{"d", "e", "n", "r"}));
  expect_contains(message<UnsupportedError>([&] { w.get("d"); }), {"d", "F64"});
  expect_contains(message<UnsupportedError>([&] { w.get("e"); }), {"F8_E4M3"});
  expect_contains(message<UnsupportedError>([&] { w.get("n"); }), {"F128"});
  expect_contains(message<UnsupportedError>([&] { w.get("r"); }), {"7 dimensions"});
  EXPECT_EQ(w.leftovers().size(), 4u);
}

struct Hostile {
  const char* header;
  std::size_t data_bytes;
  const char* reason;  // in the message
};

TEST_F(WeightsTest, RefusesHostileHeaders) {
  const Hostile cases[] = {
      {R"([])", 0, "not an object"},
      {R"({"a":1})", 0, "expected an object"},
      {R"({"a":{}})", 0, "dtype is missing"},
      {R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", 4, "expected a string"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, "shape is missing"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "data_offsets is missing"},
      {R"({"a":{"dtype":"F32","shape":4,"data_offsets":[0,4]}})", 4, "expected an array"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "found -1"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "found 1.0"},
      {R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", 4, "found a string"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551620]}})", 4, "found"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "expected 2 numbers"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 8, "expected 2 numbers"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "reversed"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3, "truncated"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775800,9223372036854775804]}})",
       4, "truncated"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "needs 8 bytes"},
      {R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1, "needs 2 bytes"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4,
       "more elements"},
      {R"({"a":{"dtype":"U8","shape":[9223372036854775807,9223372036854775807,0],"data_offsets":[0,0]}})",
       0, "more elements"},
      {R"({"a":{"dtype":"F128","shape":[9223372036854775807],"data_offsets":[0,1]}})", 1, "bits"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
       R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "overlap"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3, "gap"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, "gap"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 2, "end at byte"},
      {R"({})", 1, "end at byte"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       1, "\"a\" is there twice"},
      {R"({"__metadata__":{"x":1}})", 0, "__metadata__"},
      {R"({"a":)", 0, "not valid JSON"},
      {"", 0, "not valid JSON"},
  };
  for (const Hostile& c : cases) {
    const auto file = write_header(c.header, c.data_bytes);
    expect_contains(message<FormatError>([&] { Weights::open(file); }),
                    {file.string() + ": ", c.reason});
  }
}

TEST_F(WeightsTest, RefusesHostileLengths) {
  const auto reason = [&](const std::string& bytes) {
    const auto file = write("model.safetensors", bytes);
    return message<FormatError>([&] { Weights::open(file); });
  };
  expect_contains(reason(""), {"0 bytes, expected at least 8"});
  expect_contains(reason("1234567"), {"7 bytes"});
  expect_contains(reason(length_prefix(3) + "{}"), {"truncated"});
  expect_contains(reason(length_prefix(100'000'001) + "{}"), {"at most 100000000"});
  expect_contains(reason(length_prefix(~std::uint64_t{0}) + "{}"), {"18446744073709551615"});
  const std::string deep(1000, '[');
  expect_contains(reason(length_prefix(deep.size()) + deep), {"nested deeper"});
}

TEST_F(WeightsTest, AnEmptyCheckpointAndEmptyTensorsAreFine) {
  write_header("{}  ", 0, "empty.safetensors");
  EXPECT_TRUE(Weights::open(dir_ / "empty.safetensors").names().empty());
  write_header(R"({"z":{"dtype":"F32","shape":[0,9223372036854775],"data_offsets":[0,0]}})", 0);
  EXPECT_EQ(Weights::open(dir_ / "model.safetensors").get("z").numel(), 0);
}

TEST_F(WeightsTest, ADirectoryWithOneFileOfAnyName) {
  save_safetensors(dir_ / "tuned.safetensors", {{"t", Tensor::zeros({1})}});
  EXPECT_TRUE(Weights::open(dir_).has("t"));
  save_safetensors(dir_ / "other.safetensors", {{"u", Tensor::zeros({1})}});
  expect_contains(message<FormatError>([&] { Weights::open(dir_); }), {"2 .safetensors files"});
  save_safetensors(dir_ / "model.safetensors", {{"v", Tensor::zeros({1})}});
  EXPECT_EQ(Weights::open(dir_).names(), Strings{"v"});
}

TEST_F(WeightsTest, TellsHowToConvertOtherFormats) {
  expect_contains(message<IoError>([&] { Weights::open(dir_ / "absent"); }), {"does not exist"});
  expect_contains(message<IoError>([&] { Weights::open(dir_); }), {"has no weights"});
  write("pytorch_model.bin", "PK");
  for (const auto& path : {dir_, dir_ / "pytorch_model.bin"}) {
    expect_contains(message<UnsupportedError>([&] { Weights::open(path); }),
                    {"pytorch_model.bin", "safe_serialization=True"});
  }
}

TEST_F(WeightsTest, ReadsShards) {
  save_safetensors(dir_ / "one.safetensors", {{"a.w", Tensor::zeros({2})}});
  save_safetensors(dir_ / "two.safetensors",
                   {{"a.b", Tensor::zeros({3})}, {"c", Tensor::zeros({4})}});
  const auto index = write("model.safetensors.index.json",
                           R"({"metadata": {}, "weight_map": {"a.w": "one.safetensors",
                              "a.b": "two.safetensors", "c": "two.safetensors"}})");
  for (const auto& path : {dir_, index}) {
    const Weights w = Weights::open(path);
    EXPECT_EQ(w.names(), (Strings{"a.b", "a.w", "c"}));
    EXPECT_EQ(w.at("a").get("b").numel(), 3);
    EXPECT_EQ(w.where("c"), (dir_ / "two.safetensors").string() + ": c");
  }
}

TEST_F(WeightsTest, RefusesBadIndexes) {
  save_safetensors(dir_ / "one.safetensors", {{"a", Tensor::zeros({1})}});
  save_safetensors(dir_ / "two.safetensors",
                   {{"a", Tensor::zeros({1})}, {"b", Tensor::zeros({1})}});
  const auto reason = [&](const std::string& map) {
    const auto index = write("model.safetensors.index.json", "{\"weight_map\": " + map + "}");
    return message<FormatError>([&] { Weights::open(index); });
  };
  for (const char* shard : {"../one.safetensors", "/etc/passwd", "x/../one.safetensors", "..", "",
                            "sub\\\\one.safetensors", "one.safetensors\\u0000"}) {
    expect_contains(reason(concat("{\"a\": \"", shard, "\"}")),
                    {"index.json: weight_map.a", "beside the index"});
  }
  expect_contains(reason(R"({"a": "gone.safetensors"})"), {"gone.safetensors", "missing"});
  expect_contains(reason(R"({"z": "one.safetensors"})"), {"\"z\"", "one.safetensors"});
  expect_contains(reason(R"({"a": "one.safetensors", "b": "two.safetensors"})"),
                  {"\"a\"", "two files", "one.safetensors", "two.safetensors"});
  expect_contains(reason(R"({"a": 1})"), {"weight_map.a", "expected a string"});
  expect_contains(reason("null"), {"weight_map", "missing"});
}

TEST_F(WeightsTest, CursorsMayBeUsedByManyThreads) {
  std::vector<NamedTensor> tensors;
  for (int i = 0; i < 500; ++i)
    tensors.push_back({concat("t.", i), Tensor::from(std::vector<float>{float(i)}, {1})});
  save_safetensors(dir_ / "model.safetensors", tensors);
  const Weights w = Weights::open(dir_);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int n = 0; n < 4; ++n) {
    threads.emplace_back([&] {
      const Weights t = w.at("t");
      for (int i = 0; i < 500; ++i) wrong += t.get(std::to_string(i)).data()[0] != float(i);
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(w.leftovers().empty());
}

TEST(WeightsFixtures, OpenAllFamilies) {
  int opened = 0;
  for (const auto& item : fs::directory_iterator(TESSERA_SOURCE_DIR "/tests/data/families")) {
    if (!item.is_directory()) continue;
    const Weights w = Weights::open(item.path());
    for (const std::string& name : w.names()) {
      const Tensor t = w.get(name);
      EXPECT_EQ(static_cast<std::int64_t>(t.to_f32().to_vector().size()), t.numel());
    }
    EXPECT_GT(w.parameters(), 0) << item.path();
    EXPECT_TRUE(w.leftovers().empty());
    ++opened;
  }
  EXPECT_GT(opened, 10);
}

}  // namespace
}  // namespace tessera
