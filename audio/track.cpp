#include "audio/track.h"

#include <algorithm>
#include <array>
#include <new>
#include <string_view>

#include "audio/sound.h"
#include "core/error.h"

namespace tessera::audio {
namespace {

// Playlists and scripts that name other files or addresses, and players that make sound without end
// from a score. What they would open is refused as well (see refuse_nested); this gives the clearer
// message.
constexpr std::array<std::string_view, 21> kRefused = {
    "applehttp",   "avisynth",   "concat",
    "concatf",     "dash",       "ffmetadata",
    "hls",         "imf",        "lavfi",
    "libgme",      "libmodplug", "libopenmpt",
    "modplug",     "openmpt",    "rtp",
    "rtsp",        "sap",        "sdp",
    "vapoursynth", "vobsub",     "webm_dash_manifest"};

// A format's name is a list: "mov,mp4,m4a,3gp".
bool is_refused(std::string_view names) {
  while (true) {
    const std::size_t comma = names.find(',');
    const std::string_view name = names.substr(0, comma);
    if (std::find(kRefused.begin(), kRefused.end(), name) != kRefused.end()) return true;
    if (comma == std::string_view::npos) return false;
    names.remove_prefix(comma + 1);
  }
}

int refuse_nested(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) {
  return AVERROR(EPERM);
}

// Only sound decoders may run while FFmpeg looks into the file: pictures and subtitles are none of
// our business.
std::string sound_decoders() {
  std::string names;
  void* cursor = nullptr;
  while (const AVCodec* codec = av_codec_iterate(&cursor)) {
    if (codec->type != AVMEDIA_TYPE_AUDIO || !av_codec_is_decoder(codec)) continue;
    if (!names.empty()) names += ',';
    names += codec->name;
  }
  return names;
}

double seconds(std::int64_t duration, AVRational base) {
  return duration > 0 ? static_cast<double>(duration) * av_q2d(base) : 0;
}

}  // namespace

Track::Track(ByteSource& source)
    : io_(source.open()),
      packet_(av_packet_alloc()),
      frame_(av_frame_alloc()),
      packets_left_(100'000 + 2 * source.size()) {
  if (!packet_ || !frame_) throw std::bad_alloc();
  open_container(source);
  const int picked = pick_stream();
  if (picked < 0) {
    throw FormatError(concat("no sound track in this ", container_->iformat->long_name, " file"));
  }
  stream_ = container_->streams[picked];
  for (unsigned i = 0; i < container_->nb_streams; ++i) {
    if (container_->streams[i] != stream_) container_->streams[i]->discard = AVDISCARD_ALL;
  }
  open_decoder();
}

void Track::open_container(ByteSource& source) {
  ffmpeg::InputFormat* format = nullptr;
  int code = av_probe_input_buffer2(io_.get(), &format, "", nullptr, 0, 0);
  if (code < 0 || !format) throw FormatError("not a sound or video file that FFmpeg can read");
  if (is_refused(format->name)) {
    throw UnsupportedError(
        concat("a ", format->long_name,
               " file only points to sound kept elsewhere; give the sound itself"));
  }
  const std::string decoders = sound_decoders();
  AVFormatContext* container = avformat_alloc_context();
  if (!container) throw std::bad_alloc();
  container->pb = io_.get();
  container->io_open = refuse_nested;
  AVDictionary* options = nullptr;
  av_dict_set(&options, "protocol_whitelist", "none", 0);
  av_dict_set(&options, "codec_whitelist", decoders.c_str(), 0);
  code = avformat_open_input(&container, "", format, &options);
  av_dict_free(&options);
  if (code < 0) {  // the container is gone
    throw FormatError(
        concat("damaged or cut off ", format->long_name, " file: ", ffmpeg::error_text(code)));
  }
  container_.reset(container);
  // Lengths that headers state; later FFmpeg fills the gaps with estimates.
  std::array<double, 64> stated{};
  for (unsigned i = 0; i < std::min(container->nb_streams, 64U); ++i) {
    stated[i] = seconds(container->streams[i]->duration, container->streams[i]->time_base);
  }
  if (container->nb_streams == 1 && stated[0] == 0) {
    stated[0] = seconds(container->duration, AVRational{1, AV_TIME_BASE});
  }
  avformat_find_stream_info(container, nullptr);  // where it fails, the decoder has the last word
  const int picked = pick_stream();
  if (picked >= 0 && picked < 64) declared_seconds_ = stated[static_cast<std::size_t>(picked)];
}

// The first sound track marked as default, else the first.
int Track::pick_stream() const {
  int first = -1;
  for (unsigned i = 0; i < container_->nb_streams; ++i) {
    const AVStream& stream = *container_->streams[i];
    if (stream.codecpar->codec_type != AVMEDIA_TYPE_AUDIO) continue;
    if (stream.disposition & AV_DISPOSITION_DEFAULT) return static_cast<int>(i);
    if (first < 0) first = static_cast<int>(i);
  }
  return first;
}

void Track::open_decoder() {
  const AVCodecID id = stream_->codecpar->codec_id;
  const AVCodec* codec = avcodec_find_decoder(id);
  if (!codec) {
    throw UnsupportedError(
        concat("this FFmpeg has no decoder for ", avcodec_get_name(id), " sound"));
  }
  decoder_.reset(avcodec_alloc_context3(codec));
  if (!decoder_) throw std::bad_alloc();
  int code = avcodec_parameters_to_context(decoder_.get(), stream_->codecpar);
  decoder_->pkt_timebase = stream_->time_base;
  if (code >= 0) code = avcodec_open2(decoder_.get(), codec, nullptr);
  if (code < 0) {
    throw FormatError(concat("the ", avcodec_get_name(id),
                             " sound track can't be decoded: ", ffmpeg::error_text(code)));
  }
}

bool Track::decode(Resampler& out) {
  int code = av_read_frame(container_.get(), packet_.get());
  const bool more = code >= 0 || code == AVERROR(EAGAIN);
  if (more && --packets_left_ < 0) code = AVERROR_INVALIDDATA;
  // An empty packet would mean the end to the decoder.
  if (code >= 0 && packet_->stream_index == stream_->index && packet_->size > 0) {
    feed(packet_.get(), out);
  }
  av_packet_unref(packet_.get());
  if (more && packets_left_ >= 0) return true;
  if (code != AVERROR_EOF) note(code, out);
  feed(nullptr, out);
  out.finish();
  return false;
}

// A null packet drains the decoder. Damaged packets are left out, as FFmpeg's own tools do.
void Track::feed(const AVPacket* packet, Resampler& out) {
  int code = avcodec_send_packet(decoder_.get(), packet);
  if (code < 0 && code != AVERROR_EOF) note(code, out);
  while ((code = avcodec_receive_frame(decoder_.get(), frame_.get())) >= 0) {
    if (frame_->decode_error_flags || (frame_->flags & AV_FRAME_FLAG_CORRUPT)) {
      note(AVERROR_INVALIDDATA, out);
    }
    out.push(*frame_);
    av_frame_unref(frame_.get());
  }
  if (code != AVERROR(EAGAIN) && code != AVERROR_EOF) note(code, out);
}

void Track::note(int code, const Resampler& out) {
  if (problems_++ > 0) return;
  first_problem_seconds_ = static_cast<double>(out.total()) / kSampleRate;
  first_problem_ = ffmpeg::error_text(code);
}

std::string Track::problem() const {
  if (problems_ == 0) return {};
  return concat("damaged after ", first_problem_seconds_, " s (", first_problem_, "; ", problems_,
                problems_ == 1 ? " error" : " errors", ")");
}

}  // namespace tessera::audio
