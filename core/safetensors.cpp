#include "core/safetensors.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/json.h"

namespace tessera::safetensors {
namespace {

struct TypeName {
  std::string_view name;
  std::int64_t bits;
  std::optional<DType> type;
};

constexpr std::array<TypeName, 20> kTypes{{
    {"F32", 32, DType::f32}, {"F16", 16, DType::f16}, {"BF16", 16, DType::bf16},
    {"I8", 8, DType::i8},    {"U8", 8, DType::u8},    {"I32", 32, DType::i32},
    {"I64", 64, DType::i64}, {"BOOL", 8, {}},         {"F4", 4, {}},
    {"F6_E2M3", 6, {}},      {"F6_E3M2", 6, {}},      {"F8_E5M2", 8, {}},
    {"F8_E4M3", 8, {}},      {"F8_E8M0", 8, {}},      {"I16", 16, {}},
    {"U16", 16, {}},         {"U32", 32, {}},         {"F64", 64, {}},
    {"U64", 64, {}},         {"C64", 64, {}},
}};

/// Reads one member of a header; every complaint names file and tensor.
class EntryReader {
 public:
  EntryReader(const std::string& origin, std::size_t header_end, std::size_t file_bytes)
      : origin_(origin), header_end_(header_end), file_bytes_(file_bytes) {}

  Entry read(const std::string& name, const json::Value& value) const {
    Entry entry;
    entry.name = name;
    const json::Object* fields = value.object();
    if (!fields) fail(entry, concat("expected an object, found ", value.kind()));
    const json::Value& dtype = field(entry, *fields, "dtype");
    if (!dtype.string()) fail(entry, concat("dtype: expected a string, found ", dtype.kind()));
    entry.dtype = *dtype.string();
    entry.shape = integers(entry, *fields, "shape");
    read_offsets(entry, integers(entry, *fields, "data_offsets"));
    check_size(entry);
    return entry;
  }

  [[noreturn]] void fail(const Entry& entry, const std::string& reason) const {
    throw FormatError(concat(origin_, ": tensor \"", entry.name, "\": ", reason));
  }

 private:
  const json::Value& field(const Entry& entry, const json::Object& fields,
                           std::string_view key) const {
    const json::Value* value = fields.find(key);
    if (!value) fail(entry, concat(key, " is missing"));
    return *value;
  }

  std::vector<std::int64_t> integers(const Entry& entry, const json::Object& fields,
                                     std::string_view key) const {
    const json::Value& value = field(entry, fields, key);
    if (!value.array()) fail(entry, concat(key, ": expected an array, found ", value.kind()));
    std::vector<std::int64_t> list;
    for (const json::Value& element : *value.array()) {
      const auto* n = std::get_if<std::int64_t>(&element.data);
      if (!n || *n < 0)
        fail(entry, concat(key, ": expected integers from 0 to 2^63 - 1, found ", shown(element)));
      list.push_back(*n);
    }
    return list;
  }

  static std::string shown(const json::Value& value) {
    return value.array() || value.object() || value.string() ? value.kind() : json::dump(value);
  }

  void read_offsets(Entry& entry, const std::vector<std::int64_t>& offsets) const {
    if (offsets.size() != 2)
      fail(entry, concat("data_offsets: expected 2 numbers, found ", offsets.size()));
    const auto begin = static_cast<std::uint64_t>(offsets[0]);
    const auto end = static_cast<std::uint64_t>(offsets[1]);
    const std::uint64_t available = file_bytes_ - header_end_;
    if (begin > end) fail(entry, concat("data_offsets are reversed: [", begin, ", ", end, "]"));
    if (end > available) {
      fail(entry, concat("its bytes end at ", end, " after the header, but the file has only ",
                         available, " there; the file is truncated or damaged"));
    }
    entry.begin = header_end_ + static_cast<std::size_t>(begin);
    entry.end = header_end_ + static_cast<std::size_t>(end);
  }

  /// Compares the bytes with type and shape. Of a type unknown here only the most extreme shapes
  /// are refused: it can't be read anyhow.
  void check_size(Entry& entry) const {
    const auto* known = std::find_if(kTypes.begin(), kTypes.end(),
                                     [&](const TypeName& t) { return t.name == entry.dtype; });
    std::int64_t bits = known == kTypes.end() ? 1 : known->bits;
    bool empty = false;
    for (const std::int64_t n : entry.shape) {
      // Zeros aside, so that the strides of an empty tensor can't overflow either.
      if (n == 0) {
        empty = true;
      } else if (__builtin_mul_overflow(bits, n, &bits)) {
        fail(entry, "its shape has more elements than can be counted");
      }
    }
    if (empty) bits = 0;
    const auto found = static_cast<std::uint64_t>(entry.end - entry.begin);
    if (known == kTypes.end()) {
      if (static_cast<std::uint64_t>(bits) > 8 * found)
        fail(entry, concat("its shape has more elements than its ", found, " bytes have bits"));
      return;
    }
    entry.type = known->type;
    if (bits % 8 != 0 || static_cast<std::uint64_t>(bits / 8) != found) {
      fail(entry, concat(entry.dtype, " of its shape needs ", (bits + 7) / 8,
                         " bytes, but data_offsets span ", found));
    }
  }

  const std::string& origin_;
  std::size_t header_end_, file_bytes_;
};

/// Bytes of the header's JSON text.
std::size_t header_length(std::span<const std::byte> file, const std::string& origin) {
  if (file.size() < 8) {
    throw FormatError(
        concat(origin, ": not a safetensors file: ", file.size(), " bytes, expected at least 8"));
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  if (length > kMaxHeaderBytes) {
    throw FormatError(concat(origin, ": not a safetensors file: a header of ", length,
                             " bytes, at most ", kMaxHeaderBytes, " are allowed"));
  }
  if (length > file.size() - 8) {
    throw FormatError(concat(origin, ": the header has ", length, " bytes, but only ",
                             file.size() - 8, " follow; the file is truncated or damaged"));
  }
  return static_cast<std::size_t>(length);
}

void check_metadata(const json::Value& value, const std::string& origin) {
  const json::Object* members = value.object();
  const bool strings = members && std::all_of(members->values.begin(), members->values.end(),
                                              [](const json::Value& v) { return v.string(); });
  if (!strings) throw FormatError(concat(origin, ": __metadata__: expected an object of strings"));
}

/// Sorts by position and checks that the tensors lie side by side from the header to the end.
void check_layout(std::vector<Entry>& entries, const EntryReader& reader, std::size_t header_end,
                  std::size_t file_bytes, const std::string& origin) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  std::size_t at = header_end;
  for (const Entry& entry : entries) {
    if (entry.begin != at) {
      reader.fail(entry, concat(entry.begin < at ? "its bytes overlap another tensor's: they start"
                                                 : "a gap lies before its bytes: they start",
                                " at byte ", entry.begin, " of the file, expected ", at));
    }
    at = entry.end;
  }
  if (at != file_bytes) {
    throw FormatError(
        concat(origin, ": the tensors end at byte ", at, ", but the file has ", file_bytes));
  }
}

}  // namespace

std::int64_t Entry::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t length : shape) n *= length;
  return n;
}

std::vector<Entry> parse_header(std::span<const std::byte> file, const std::string& origin) {
  const std::size_t length = header_length(file, origin);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, length);
  const json::Value header = json::parse(text, origin, json::Duplicates::rejected);
  const json::Object* members = header.object();
  if (!members)
    throw FormatError(concat(origin, ": the header is not an object but ", header.kind()));
  const EntryReader reader(origin, 8 + length, file.size());
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < members->keys.size(); ++i) {
    if (members->keys[i] == "__metadata__") {
      check_metadata(members->values[i], origin);
    } else {
      entries.push_back(reader.read(members->keys[i], members->values[i]));
    }
  }
  check_layout(entries, reader, 8 + length, file.size(), origin);
  return entries;
}

}  // namespace tessera::safetensors
