#include "cli/canvas.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "core/error.h"
#include "core/output_file.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb_easy_font.h>
#include <stb_image_write.h>
#pragma GCC diagnostic pop

namespace tessera::cli {
namespace {

constexpr float kScale = 2;  // of the font's letters, 7 pixels high

/// stb's functions want texts that they could write to.
std::string printable(const std::string& text) {
  std::string out;
  for (const char c : text) out += c >= ' ' && c <= '~' ? c : '?';
  return out;
}

void append(void* to, void* data, int size) {
  static_cast<std::string*>(to)->append(static_cast<const char*>(data),
                                        static_cast<std::size_t>(size));
}

}  // namespace

Canvas::Canvas(int width, int height)
    : width_(width),
      height_(height),
      pixels_(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3, 255) {}

void Canvas::blend(int x, int y, Color color, double share) {
  if (x < 0 || y < 0 || x >= width_ || y >= height_ || share <= 0) return;
  std::uint8_t* p = &pixels_[3 * (static_cast<std::size_t>(y) * static_cast<std::size_t>(width_) +
                                  static_cast<std::size_t>(x))];
  const std::uint8_t parts[3] = {color.red, color.green, color.blue};
  for (int i = 0; i < 3; ++i)
    p[i] = static_cast<std::uint8_t>(std::lround(p[i] + std::min(share, 1.0) * (parts[i] - p[i])));
}

/// Every pixel as far as the line covers it, by its distance.
void Canvas::line(double x0, double y0, double x1, double y1, Color color, double thickness) {
  const double half = thickness / 2, dx = x1 - x0, dy = y1 - y0, length2 = dx * dx + dy * dy;
  const auto from = [&](double a, double b) { return static_cast<int>(std::min(a, b) - half - 1); };
  const auto to = [&](double a, double b) { return static_cast<int>(std::max(a, b) + half + 2); };
  for (int y = from(y0, y1); y < to(y0, y1); ++y) {
    for (int x = from(x0, x1); x < to(x0, x1); ++x) {
      const double px = x + 0.5 - x0, py = y + 0.5 - y0;
      const double t = length2 > 0 ? std::clamp((px * dx + py * dy) / length2, 0.0, 1.0) : 0;
      blend(x, y, color, half + 0.5 - std::hypot(px - t * dx, py - t * dy));
    }
  }
}

void Canvas::disc(double x, double y, double radius, Color color) {
  line(x, y, x, y, color, 2 * radius);
}

void Canvas::text(double x, double y, const std::string& text, Color color) {
  struct Vertex {
    float x, y, z;
    unsigned char color[4];
  };
  std::string letters = printable(text);
  std::vector<Vertex> corners(100 * letters.size() + 100);
  const int quads = stb_easy_font_print(0, 0, letters.data(), nullptr, corners.data(),
                                        static_cast<int>(corners.size() * sizeof(Vertex)));
  for (std::size_t i = 0; i < static_cast<std::size_t>(quads); ++i) {
    const Vertex &a = corners[4 * i], &b = corners[4 * i + 2];  // opposite corners
    for (auto row = static_cast<int>(a.y * kScale); row < static_cast<int>(b.y * kScale); ++row) {
      for (auto column = static_cast<int>(a.x * kScale); column < static_cast<int>(b.x * kScale);
           ++column)
        blend(static_cast<int>(x) + column, static_cast<int>(y) + row, color, 1);
    }
  }
}

int Canvas::text_width(const std::string& text) {
  std::string letters = printable(text);
  return static_cast<int>(kScale * static_cast<float>(stb_easy_font_width(letters.data())));
}

void Canvas::save_png(const std::filesystem::path& file) const {
  std::string png;
  if (!stbi_write_png_to_func(append, &png, width_, height_, 3, pixels_.data(), 3 * width_))
    throw IoError(concat(file.string(), ": the picture can't be made"));
  write_file(file, png);
}

}  // namespace tessera::cli
