#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_json.h"
#include "text/tokenizer_pattern.h"

namespace tessera::text {

/// A text cut into pieces. `at_start` tells of a piece whether it is at the very start of the text
/// given by the user.
struct Pieces {
  struct Piece {
    std::size_t begin;
    std::size_t end;
    bool at_start;
  };
  std::string text;
  std::vector<Piece> pieces;

  std::string_view of(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

/// What becomes of the matches of a Split.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// tokenizer.json's "pre_tokenizer": cuts text into the words that the model sees. Const and
/// shared.
class PreTokenizer {
 public:
  PreTokenizer() = default;  ///< the text is one word
  /// Throws FormatError, UnsupportedError for a type that is not known.
  explicit PreTokenizer(const JsonView& json);
  /// GPT-2's.
  static PreTokenizer gpt2(bool add_prefix_space);

  void operator()(Pieces& pieces) const;
  /// The words are raw bytes, each of which stands for its character of byte_to_char(): ByteLevel
  /// as the last step leaves that to the model.
  bool byte_level_words() const { return byte_level_pending_; }

 private:
  using Split = std::function<std::vector<TextPart>(std::string_view)>;
  void add(const JsonView& json);
  void add_byte_level(bool add_prefix_space, bool use_regex);
  void add_metaspace(const JsonView& json);
  void add_split(Split split, SplitBehavior behavior);
  /// A step that changes the text of pieces, by a function of piece and at_start.
  void add_change(std::function<std::string(std::string_view, bool)> change);
  /// Adds the step from bytes to characters that a ByteLevel before it has left out.
  void write_out_bytes();

  std::vector<std::function<void(Pieces&)>> steps_;
  bool byte_level_pending_ = false;  // ByteLevel was the last step so far
};

}  // namespace tessera::text
