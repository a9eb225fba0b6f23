#include "audio/sound.h"

#include "audio/sound_stream.h"
#include "core/text_file.h"

namespace tessera::audio {

bool is_sound_name(const std::filesystem::path& file) {
  return has_ending(file, {".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma",
                           ".aiff", ".mp4", ".m4v", ".mov", ".mkv", ".webm"});
}

Sound load_sound(const std::filesystem::path& file, const SoundLimits& limits) {
  return read_all(*open_sound(file, limits));
}

Sound decode_sound(std::span<const std::uint8_t> bytes, const std::string& name,
                   const SoundLimits& limits) {
  return read_all(*open_sound(bytes, name, limits));
}

Sound from_pcm(std::span<const std::uint8_t> bytes, PcmFormat format, std::int64_t rate,
               std::int64_t channels) {
  return read_all(*open_pcm(bytes, "", format, rate, channels));
}

}  // namespace tessera::audio
