#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace tessera::cli {

struct Color {
  std::uint8_t red, green, blue;
};

/// A picture to draw on, white at first. Places are in pixels from the upper left corner.
class Canvas {
 public:
  Canvas(int width, int height);
  int width() const { return width_; }
  int height() const { return height_; }

  void line(double x0, double y0, double x1, double y1, Color color, double thickness = 1);
  void disc(double x, double y, double radius, Color color);
  /// Upper left corner at (x, y); letters of 14 pixels.
  void text(double x, double y, const std::string& text, Color color);
  static int text_width(const std::string& text);
  /// Throws IoError.
  void save_png(const std::filesystem::path& file) const;

 private:
  /// Lays color over a pixel; share in [0, 1].
  void blend(int x, int y, Color color, double share);

  int width_, height_;
  std::vector<std::uint8_t> pixels_;  // RGB
};

}  // namespace tessera::cli
