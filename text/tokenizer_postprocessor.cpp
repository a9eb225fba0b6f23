#include "text/tokenizer_postprocessor.h"

#include <utility>

#include "core/error.h"

namespace tessera::text {
namespace {

constexpr std::size_t kMaxPieces = 1024;

std::int32_t special_of(const JsonView& json, const char* key) {
  const JsonView pair = json.at(key);  // [content, id]
  const std::vector<JsonView> parts = json.elements(key);
  if (parts.size() != 2) throw FormatError(concat(pair.where(), ": expected a token and its id"));
  return static_cast<std::int32_t>(parts[1].as_integer(kMaxTokenId));
}

std::vector<std::int32_t> special_ids(const JsonView& json, const std::string& name) {
  std::vector<std::int32_t> ids;
  for (const JsonView& id : json.at("special_tokens").at(name.c_str()).elements("ids"))
    ids.push_back(static_cast<std::int32_t>(id.as_integer(kMaxTokenId)));
  return ids;
}

}  // namespace

PostProcessor::PostProcessor(const JsonView& json) { add(json); }

void PostProcessor::add(const JsonView& json) {
  const std::string type = json.string("type");
  const Piece text{true, {}};
  if (type == "Sequence") {
    for (const JsonView& element : json.elements("processors")) add(element);
  } else if (type == "TemplateProcessing") {
    Template pieces;
    bool has_text = false;
    for (const JsonView& piece : json.elements("single")) {
      if (piece.has("Sequence")) {
        if (piece.at("Sequence").string("id") != "A")
          throw FormatError(
              concat(piece.where(), ": expected the sequence A in the template of one sequence"));
        if (std::exchange(has_text, true))
          throw UnsupportedError(
              concat(piece.where(), ": the text twice in one template is not supported"));
        pieces.push_back(text);
      } else {
        pieces.push_back({false, special_ids(json, piece.at("SpecialToken").string("id"))});
      }
    }
    if (pieces.size() > kMaxPieces)
      throw FormatError(concat(json.where(), ": a template of ", pieces.size(), " pieces; at most ",
                               kMaxPieces, " are read"));
    templates_.push_back(std::move(pieces));
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    templates_.push_back(
        {{false, {special_of(json, "cls")}}, text, {false, {special_of(json, "sep")}}});
  } else if (type != "ByteLevel") {  // ByteLevel moves offsets only
    throw UnsupportedError(
        concat(json.where(), ": post_processor type '", type,
               "' is not supported; known are "
               "TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel and Sequence"));
  }
}

std::vector<std::int32_t> PostProcessor::operator()(std::vector<std::int32_t> ids) const {
  for (const Template& pieces : templates_) {
    std::vector<std::int32_t> out;
    for (const Piece& piece : pieces) {
      const std::vector<std::int32_t>& part = piece.sequence ? ids : piece.ids;
      out.insert(out.end(), part.begin(), part.end());
    }
    ids = std::move(out);
  }
  return ids;
}

}  // namespace tessera::text
