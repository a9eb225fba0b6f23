#pragma once
#include <string>

#include "audio/byte_source.h"

namespace tessera::audio {

/// Whether a file ended before what it holds did (after `seconds` of sound, where its header
/// declares so many; 0: none): says so, else an empty text. Private to audio/.
std::string cut_short(ByteSource& source, double declared_seconds, double seconds);

}  // namespace tessera::audio
