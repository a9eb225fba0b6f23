#pragma once
#include <string>

namespace tessera::text {

/// Spelt-out English numbers in digits ("twenty one dollars" -> "$21"), of lower-case text, as
/// Whisper's EnglishNumberNormalizer (Radford et al. 2022, appendix C).
std::string numbers_to_digits(const std::string& text);

}  // namespace tessera::text
