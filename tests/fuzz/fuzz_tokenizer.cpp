#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "text/tokenizer.h"

// Any bytes as tokenizer.json: a tokenizer that encodes, decodes and streams the same, or an Error.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tessera::text;
  static constexpr std::string_view kText =
      "The dog's  cafe\xCC\x81 \xE4\xBD\xA0\xE5\xA5\xBD 123\r\n<s> \xF0\x9F\x98\x80 \xFF </s>ab";
  try {
    const Tokenizer tokenizer =
        Tokenizer::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    for (const bool special : {false, true}) {
      const std::vector<std::int32_t> ids = tokenizer.encode(kText, {special, special});
      for (const std::int32_t id : ids)
        if (id < 0 || (!special && id >= tokenizer.vocab_size())) __builtin_trap();
      StreamDecoder stream(tokenizer, {special, special});
      std::string joined;
      for (const std::int32_t id : ids) joined += stream.push(id);
      joined += stream.finish();
      if (joined != tokenizer.decode(ids, {special, special})) __builtin_trap();
    }
  } catch (const tessera::Error&) {
  }
  return 0;
}
