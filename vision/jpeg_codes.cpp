// The Huffman-coded part of JPEG files, block by block: how many bits each block has, not what is
// in them.
#include <algorithm>
#include <array>
#include <optional>

#include "vision/jpeg_bits.h"
#include "vision/jpeg_segments.h"

namespace tessera::vision {
namespace {

struct ScanComponent {
  std::size_t index = 0;  // among the frame's
  std::int64_t h = 1, v = 1;
  std::uint32_t dc = 0, ac = 0;  // tables
};

struct Scan {
  std::vector<ScanComponent> components;
  std::uint32_t first = 0, last = 63,
                refines = 0;  // spectral band; not zero: adds a bit to known values
};

/// Which components a copy has: as they are, flat, or not at all.
enum class Keep { as_is, flat, no };

/// Reads blocks; hands every run of bits to a writer where there is one.
class Walker {
 public:
  Walker(const Encoded& file, const JpegLayout& layout) : file_(file), layout_(layout) {}

  void read_tables(const JpegSegment& segment) {
    if (segment.marker == kJpegDri) restart_interval_ = file_.big(segment.at, 2);
    if (segment.marker != kJpegDht) return;
    for (std::size_t at = segment.at; at < segment.at + segment.length;) {
      const std::uint32_t slot = file_.u8(at);
      if ((slot & 15) > 3 || slot >> 4 > 1) file_.fail(at, "a Huffman table numbered ", slot);
      tables_[slot >> 4][slot & 15] = JpegHuffmanTable(file_, at + 1);
      at += 1 + tables_[slot >> 4][slot & 15].size();
    }
  }

  Scan read_scan(const JpegSegment& segment) const {
    Scan scan;
    const std::size_t count = file_.u8(segment.at);
    if (count < 1 || count > 4 || segment.length != 4 + count * 2)
      file_.fail(segment.at, "a bad scan header");
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint32_t id = file_.u8(segment.at + 1 + i * 2),
                          slots = file_.u8(segment.at + 2 + i * 2);
      const auto found =
          std::find_if(layout_.components.begin(), layout_.components.end(),
                       [id](const JpegComponent& component) { return component.id == id; });
      if (found == layout_.components.end() || slots >> 4 > 3 || (slots & 15) > 3)
        file_.fail(segment.at, "a bad scan header");
      scan.components.push_back({static_cast<std::size_t>(found - layout_.components.begin()),
                                 found->h, found->v, slots >> 4, slots & 15});
    }
    if (!layout_.progressive()) return scan;
    scan.first = file_.u8(segment.at + 1 + count * 2);
    scan.last = file_.u8(segment.at + 2 + count * 2);
    scan.refines = file_.u8(segment.at + 3 + count * 2) >> 4;
    return scan;
  }

  /// Walks all blocks of a sequential scan, or a progressive one of mean values; returns where its
  /// codes end.
  std::size_t walk(const JpegSegment& segment, const Scan& scan, const std::array<Keep, 4>& keep,
                   std::vector<std::uint8_t>* out) {
    JpegBitReader in(file_, segment.at + segment.length, segment.data_end);
    std::optional<JpegBitWriter> writer;
    if (out != nullptr) writer.emplace(*out);
    const bool alone = scan.components.size() == 1;
    const JpegComponent& only = layout_.components[scan.components[0].index];
    const std::int64_t units = alone ? layout_.blocks_across(only) * layout_.blocks_down(only)
                                     : (layout_.width + 8 * layout_.h - 1) / (8 * layout_.h) *
                                           ((layout_.height + 8 * layout_.v - 1) / (8 * layout_.v));
    std::uint32_t restarts = 0;
    for (std::int64_t unit = 0; unit < units; ++unit) {
      if (restart_interval_ > 0 && unit > 0 && unit % restart_interval_ == 0) {
        in.restart();
        if (writer) {
          writer->align();
          out->insert(out->end(), {0xff, static_cast<std::uint8_t>(kJpegRst0 + restarts++ % 8)});
        }
      }
      for (const ScanComponent& component : scan.components)
        for (std::int64_t i = alone ? 1 : component.h * component.v; i > 0; --i)
          block(scan, component, keep[component.index], in, writer ? &*writer : nullptr);
    }
    if (writer) writer->align();
    return in.end_of_used();
  }

 private:
  void block(const Scan& scan, const ScanComponent& component, Keep keep, JpegBitReader& in,
             JpegBitWriter* out) {
    if (out == nullptr)
      return read_block(scan, component, in, [&in](std::uint32_t count) { in.drop(count); });
    // A flat block is one bit where values are refined, else a bit for "same mean" and a bit for
    // "nothing more".
    if (keep == Keep::flat) out->bits(0, scan.refines == 0 && scan.last > 0 ? 2 : 1);
    read_block(scan, component, in, [&](std::uint32_t count) {
      if (keep == Keep::as_is) out->bits(in.peek(count), count);
      in.drop(count);
    });
  }

  /// Finds one code after the other; take(n) has to drop its bits and those of its value.
  template <class Take>
  void read_block(const Scan& scan, const ScanComponent& component, JpegBitReader& in,
                  const Take& take) const {
    if (scan.refines > 0) return take(1);
    const JpegCode mean = tables_[0][component.dc].find(file_, in);
    if (mean.symbol > 15)
      file_.fail(in.position(), "corrupt: a value of ", int{mean.symbol}, " bits");
    take(mean.bits);
    const JpegHuffmanTable& table = tables_[1][component.ac];
    for (std::uint32_t k = 1; k <= scan.last; ++k) {
      const JpegCode detail = table.find(file_, in);
      take(detail.bits);
      if (detail.symbol == 0) break;  // nothing more
      k += detail.symbol >> 4;        // zeros before it
    }
  }

  const Encoded& file_;
  const JpegLayout& layout_;
  std::int64_t restart_interval_ = 0;
  std::array<std::array<JpegHuffmanTable, 4>, 2> tables_;  // [DC, AC][number]
};

void append_segment(std::vector<std::uint8_t>& out, std::uint32_t marker,
                    std::span<const std::uint8_t> content) {
  const std::size_t length = content.size() + 2;
  out.insert(out.end(),
             {0xff, static_cast<std::uint8_t>(marker), static_cast<std::uint8_t>(length >> 8),
              static_cast<std::uint8_t>(length)});
  out.insert(out.end(), content.begin(), content.end());
}

void append_adobe(std::vector<std::uint8_t>& out, int transform) {
  std::vector<std::uint8_t> adobe = {'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0};
  adobe.push_back(transform > 0 ? 1 : 0);
  append_segment(out, kJpegApp14, adobe);
}

bool is_table(std::uint32_t marker) {
  return marker == kJpegDht || marker == kJpegDqt || marker == kJpegDri || marker == kJpegDac;
}

/// The last three bytes of a scan header: the spectral band and the bits it adds. Sequential scans
/// have one meaning whatever is stored there.
std::array<std::uint8_t, 3> band_of(const Encoded& file, const JpegLayout& layout,
                                    const JpegSegment& scan) {
  if (!layout.progressive()) return {0, 63, 0};
  const auto stored = file.part(scan.at + scan.length - 3, 3);
  return {stored[0], stored[1], stored[2]};
}

/// Writes a file of three of the four components.
class Copy {
 public:
  Copy(const Encoded& file, const JpegLayout& layout, const std::array<Keep, 4>& keep,
       int adobe_transform)
      : file_(file), layout_(layout), walker_(file, layout), keep_(keep), out_({0xff, kJpegSoi}) {
    append_adobe(out_, adobe_transform);
  }

  std::vector<std::uint8_t> run() {
    for (const JpegSegment& next : layout_.segments) {
      walker_.read_tables(next);
      if (next.marker == layout_.frame)
        frame(next);
      else if (next.marker == kJpegSos)
        scan(next);
      else if (is_table(next.marker))
        append_segment(out_, next.marker, file_.part(next.at, next.length));
    }
    if (layout_.progressive()) flat_details();
    out_.insert(out_.end(), {0xff, kJpegEoi});
    return std::move(out_);
  }

 private:
  static constexpr std::uint8_t kFlatTable = 3;  // number of the Huffman tables of flat blocks

  void frame(const JpegSegment& from) {
    const auto bytes = file_.part(from.at, from.length);
    std::vector<std::uint8_t> header(bytes.begin(), bytes.begin() + 6);
    header[5] = 3;
    for (std::size_t i = 0; i < 4; ++i)
      if (keep_[i] != Keep::no)
        header.insert(header.end(), bytes.begin() + 6 + std::ptrdiff_t(i) * 3,
                      bytes.begin() + 9 + std::ptrdiff_t(i) * 3);
    append_segment(out_, from.marker, header);
  }

  void scan(const JpegSegment& from) {
    const Scan scan = walker_.read_scan(from);
    const auto bytes = file_.part(from.at, from.length);
    std::vector<std::uint8_t> header = {0};
    bool flat = false;
    for (std::size_t i = 0; i < scan.components.size(); ++i) {
      const Keep keep = keep_[scan.components[i].index];
      if (keep == Keep::no || (keep == Keep::flat && scan.first > 0)) continue;
      if (keep == Keep::as_is &&
          (scan.components[i].dc == kFlatTable || scan.components[i].ac == kFlatTable))
        file_.unsupported("CMYK with four Huffman tables");
      flat = flat || keep == Keep::flat;
      ++header[0];
      header.push_back(bytes[1 + i * 2]);
      header.push_back(keep == Keep::flat ? kFlatTable << 4 | kFlatTable : bytes[2 + i * 2]);
    }
    if (header[0] == 0) return;
    const auto band = band_of(file_, layout_, from);
    header.insert(header.end(), band.begin(), band.end());
    if (flat) flat_tables();
    append_segment(out_, kJpegSos, header);
    if (scan.first > 0) {  // a progressive scan of details: of one component only, taken whole
      const auto codes = file_.part(from.at + from.length, from.data_end - from.at - from.length);
      out_.insert(out_.end(), codes.begin(), codes.end());
    } else {
      walker_.walk(from, scan, keep_, &out_);
    }
  }

  /// One code, the bit 0, for symbol 0.
  void flat_tables() {
    for (const int kind : {0, 1}) {
      std::array<std::uint8_t, 18> table{static_cast<std::uint8_t>(kind << 4 | kFlatTable), 1};
      append_segment(out_, kJpegDht, table);
    }
  }

  /// Scans that say of the flat components that they have no details. Without them decoders would
  /// take the file for one that is still being loaded, and smooth it (libjpeg-turbo 2.1.2 even
  /// refuses it).
  void flat_details() {
    constexpr std::array<std::uint8_t, 2> kNoRestarts{0, 0};
    append_segment(out_, kJpegDri, kNoRestarts);
    flat_tables();
    for (std::size_t i = 0; i < layout_.components.size(); ++i) {
      if (keep_[i] != Keep::flat) continue;
      const JpegComponent& component = layout_.components[i];
      const std::array<std::uint8_t, 6> header{
          1, static_cast<std::uint8_t>(component.id), kFlatTable, 1, 63, 0};
      append_segment(out_, kJpegSos, header);
      JpegBitWriter bits(out_);
      for (std::int64_t n = layout_.blocks_across(component) * layout_.blocks_down(component);
           n > 0; --n)
        bits.bits(0, 1);
      bits.align();
    }
  }

  const Encoded& file_;
  const JpegLayout& layout_;
  Walker walker_;
  std::array<Keep, 4> keep_;
  std::vector<std::uint8_t> out_;
};

}  // namespace

std::vector<std::uint8_t> clean_jpeg(const Encoded& file, const JpegLayout& layout) {
  Walker walker(file, layout);
  std::vector<std::uint8_t> out = {0xff, kJpegSoi};
  out.reserve(file.size() + 64);
  constexpr std::uint8_t kJfif[] = {'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0};
  if (layout.jfif) append_segment(out, kJpegApp0, kJfif);
  if (layout.adobe_transform >= 0) append_adobe(out, layout.adobe_transform);
  for (const JpegSegment& segment : layout.segments) {
    walker.read_tables(segment);
    const auto content = file.part(segment.at, segment.length);
    if (segment.marker == layout.frame || is_table(segment.marker))
      append_segment(out, segment.marker, content);
    if (segment.marker != kJpegSos) continue;
    const Scan scan = walker.read_scan(segment);
    append_segment(out, kJpegSos, content);
    const auto band = band_of(file, layout, segment);
    std::copy(band.begin(), band.end(), out.end() - 3);
    const bool walked = !layout.arithmetic() && scan.first == 0;
    const std::size_t begin = segment.at + segment.length;
    const auto codes = file.part(
        begin, (walked ? walker.walk(segment, scan, {}, nullptr) : segment.data_end) - begin);
    out.insert(out.end(), codes.begin(), codes.end());
  }
  out.insert(out.end(), {0xff, kJpegEoi});
  return out;
}

JpegHalves split_jpeg(const Encoded& file, const JpegLayout& layout) {
  if (layout.arithmetic()) file.unsupported("arithmetic-coded CMYK");
  const JpegComponent &first = layout.components[0], &black = layout.components[3];
  if (first.h != layout.h || first.v != layout.v || black.h > first.h || black.v > first.v)
    file.unsupported("CMYK whose first component is not the finest");
  constexpr Keep kAsIs = Keep::as_is, kFlat = Keep::flat, kNo = Keep::no;
  return {Copy(file, layout, {kAsIs, kAsIs, kAsIs, kNo}, layout.adobe_transform).run(),
          Copy(file, layout, {kFlat, kFlat, kNo, kAsIs}, 0).run()};
}

}  // namespace tessera::vision
