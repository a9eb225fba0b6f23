#include "text/jinja_parser.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "core/error.h"
#include "text/jinja_lexer.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text::jinja {
namespace {

constexpr std::size_t kMostSource = std::size_t{1} << 20;
constexpr int kMostNesting = 100;  // of tags, and of brackets and operators in an expression

using Words = std::vector<std::string_view>;

class Parser {
 public:
  Parser(std::string_view source, const std::string& origin)
      : origin_(origin), tokens_(tokenize(source, origin)) {}

  Program run() {
    program_.root = statements({});
    if (token().kind != Token::Kind::end) fail(concat("unexpected {% ", token().text, " %}"));
    return std::move(program_);
  }

 private:
  /// Counts how deep the parser is in itself.
  struct Nesting {
    explicit Nesting(Parser& p) : parser(p) {
      if (++p.depth_ > kMostNesting) p.fail("nested too deep");
    }
    ~Nesting() { --parser.depth_; }
    Parser& parser;
  };

  // --- tokens ---

  const Token& token(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  [[noreturn]] void fail(const std::string& message) const {
    throw FormatError(concat(origin_, ":", token().line, ": ", message));
  }
  [[noreturn]] void fail_expecting(std::string_view what) const {
    static constexpr const char* kNames[] = {
        "text", "{%", "the end of the tag",     "{{", "the end of the tag", "", "", "",
        "",     "",   "the end of the template"};
    const Token& t = token();
    const std::string name = kNames[static_cast<std::size_t>(t.kind)];
    fail(concat("expected ", what, ", found ", name.empty() ? concat("'", t.text, "'") : name));
  }
  bool skip(std::string_view op_or_name) {
    const bool is = token().is(op_or_name);
    at_ += is;
    return is;
  }
  void expect(std::string_view op_or_name) {
    if (!skip(op_or_name)) fail_expecting(concat("'", op_or_name, "'"));
  }
  void expect(Token::Kind kind, std::string_view what) {
    if (token().kind != kind) fail_expecting(what);
    ++at_;
  }
  void end_tag() { expect(Token::Kind::block_end, "%}"); }
  std::string name() {
    if (token().kind != Token::Kind::name) fail_expecting("a name");
    return tokens_[at_++].text;
  }
  Node& add(Kind kind, std::vector<const Node*> parts = {}, std::string text = {}) {
    return program_.nodes.emplace_back(
        Node{kind, token().line, std::move(text), None{}, std::move(parts), {}});
  }

  // --- statements ---

  /// Up to a tag with one of these words, whose word is then the current token.
  const Node* statements(const Words& ends) {
    const Nesting nesting(*this);
    Node& block = add(Kind::block);
    for (;;) {
      const Token& t = token();
      if (t.kind == Token::Kind::text) {
        block.parts.push_back(&add(Kind::output, {}, t.text));
        ++at_;
      } else if (t.kind == Token::Kind::print_begin) {
        ++at_;
        const Node* what = tuple_expression();
        block.parts.push_back(&add(Kind::print, {what}));
        expect(Token::Kind::print_end, "}}");
      } else if (t.kind == Token::Kind::block_begin) {
        ++at_;
        if (std::ranges::any_of(ends, [&](std::string_view end) { return token().is(end); }))
          return &block;
        block.parts.push_back(statement(ends));
      } else {
        if (!ends.empty()) fail(concat("{% ", ends.back(), " %} is missing"));
        return &block;
      }
    }
  }
  /// The statements up to {% end %}, and behind it.
  const Node* body(std::string_view end) {
    end_tag();
    const Node* block = statements({end});
    ++at_;
    end_tag();
    return block;
  }

  const Node* statement(const Words& ends) {
    static const std::map<std::string, const Node* (Parser::*)(), std::less<>> kKnown = {
        {"if", &Parser::if_tag},       {"for", &Parser::for_tag},
        {"set", &Parser::set_tag},     {"macro", &Parser::macro_tag},
        {"call", &Parser::call_tag},   {"filter", &Parser::filter_tag},
        {"with", &Parser::with_tag},   {"generation", &Parser::generation_tag},
        {"break", &Parser::break_tag}, {"continue", &Parser::continue_tag}};
    const auto known = token().kind == Token::Kind::name ? kKnown.find(token().text) : kKnown.end();
    if (known == kKnown.end()) {
      if (ends.empty()) fail(concat("{% ", token().text, " %} is not known here"));
      fail(concat("{% ", token().text, " %} where {% ", ends.back(), " %} was expected"));
    }
    ++at_;
    return (this->*known->second)();
  }

  const Node* if_tag() {
    Node& branch = add(Kind::branch);
    for (bool more = true; more;) {
      const Node* condition = tuple_expression(false);
      end_tag();
      const Node* block = statements({"elif", "else", "endif"});
      branch.parts.insert(branch.parts.end(), {condition, block});
      more = skip("elif");
    }
    if (skip("else")) {
      end_tag();
      branch.parts.push_back(statements({"endif"}));
    }
    ++at_;
    end_tag();
    return &branch;
  }

  const Node* for_tag() {
    Node& loop = add(Kind::loop);
    const Node* to = target("in");
    expect("in");
    const Node* in = tuple_expression(false);
    const Node* condition = skip("if") ? expression() : nullptr;
    if (token().is("recursive")) fail("recursive loops are not known here");
    end_tag();
    ++loops_;
    const Node* block = statements({"else", "endfor"});
    --loops_;
    const Node* otherwise = nullptr;
    if (skip("else")) {
      end_tag();
      otherwise = statements({"endfor"});
    }
    ++at_;
    end_tag();
    loop.parts = {to, in, block, condition, otherwise};
    return &loop;
  }

  const Node* set_tag() {
    Node& node = add(Kind::assign);
    const Node* to = target("=");
    if (skip("=")) {
      node.parts = {to, tuple_expression()};
      end_tag();
      return &node;
    }
    const Node* filter = token().is("|") ? filters(&add(Kind::name, {}, kBlock)) : nullptr;
    node.kind = Kind::capture;
    const Node* block = body("endset");
    node.parts = {to, block, filter};
    return &node;
  }

  /// "(a, b=1)" of a macro.
  void parameters(Node& macro) {
    for (bool first = true; !skip(")"); first = false) {
      if (!first) expect(",");
      macro.names.push_back(name());
      if (skip("=")) {
        macro.parts.push_back(expression());
      } else if (macro.parts.size() > 1) {
        fail("a parameter without a default behind one with a default");
      }
    }
  }
  /// What is in a macro is in no loop.
  const Node* macro_body(std::string_view end) {
    const int outer = std::exchange(loops_, 0);
    const Node* block = body(end);
    loops_ = outer;
    return block;
  }

  const Node* macro_tag() {
    Node& macro = add(Kind::macro);
    macro.text = name();
    macro.parts = {nullptr};
    expect("(");
    parameters(macro);
    macro.parts.front() = macro_body("endmacro");
    return &macro;
  }

  const Node* call_tag() {
    Node &node = add(Kind::call_block), &caller = add(Kind::macro, {nullptr}, "caller");
    if (skip("(")) parameters(caller);
    const Node* call = expression();
    if (call->kind != Kind::call) fail("{% call %} needs a call");
    caller.parts.front() = macro_body("endcall");
    node.parts = {call, &caller};
    return &node;
  }

  const Node* filter_tag() {
    Node& node = add(Kind::filtered);
    const Node* filter = filters(&add(Kind::name, {}, kBlock), true);
    node.parts = {filter, macro_body("endfilter")};
    return &node;
  }

  const Node* with_tag() {
    Node& node = add(Kind::with);
    while (token().kind != Token::Kind::block_end) {
      if (!node.parts.empty()) expect(",");
      node.parts.push_back(target("="));
      expect("=");
      node.parts.push_back(expression());
    }
    node.parts.push_back(body("endwith"));
    return &node;
  }

  const Node* generation_tag() {
    program_.has_generation = true;
    Node& node = add(Kind::generation);
    node.parts = {macro_body("endgeneration")};
    return &node;
  }

  const Node* break_tag() { return jump(Kind::leave); }
  const Node* continue_tag() { return jump(Kind::next); }
  const Node* jump(Kind kind) {
    if (loops_ == 0) fail("{% break %} and {% continue %} are for loops");
    end_tag();
    return &add(kind);
  }

  /// What can be assigned to: names, an attribute of a namespace, a tuple of names.
  const Node* target(std::string_view end) {
    Node& tuple = add(Kind::tuple);
    const bool bracket = skip("(");
    do {
      if (token().is(end) || (bracket && token().is(")"))) break;  // a comma at the end
      Node& one = add(Kind::name, {}, name());
      if (skip(".")) {
        tuple.parts.push_back(&add(Kind::attribute, {&one}, name()));
      } else {
        tuple.parts.push_back(&one);
      }
    } while (skip(","));
    if (bracket) expect(")");
    if (tuple.parts.empty()) fail_expecting("a name");
    const bool one = tuple.parts.size() == 1 && !tokens_[at_ - 1].is(",");
    return one ? tuple.parts.front() : &tuple;
  }

  // --- expressions ---

  /// One expression, or several with commas between them: a tuple.
  const Node* tuple_expression(bool with_choice = true) {
    const Node* first = with_choice ? expression() : operation(0);
    if (!token().is(",")) return first;
    Node& tuple = add(Kind::tuple, {first});
    while (skip(",") && starts_expression())
      tuple.parts.push_back(with_choice ? expression() : operation(0));
    return &tuple;
  }
  bool starts_expression() const {
    const Token& t = token();
    return t.kind != Token::Kind::block_end && t.kind != Token::Kind::print_end && !t.is(")");
  }

  const Node* expression() {
    const Nesting nesting(*this);
    const Node* what = operation(0);
    while (token().is("if")) {
      Node& choice = add(Kind::choice, {what});
      ++at_;
      choice.parts.push_back(operation(0));
      if (skip("else")) choice.parts.push_back(expression());
      what = &choice;
    }
    return what;
  }

  /// From the loosest to the tightest: or, and, not, comparison, + -, ~, * / // %, **.
  const Node* operation(std::size_t level) {
    static const std::vector<Words> kLevels = {
        {"or"}, {"and"}, {}, {}, {"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}};
    if (level == 2) return negation();
    if (level == 3) return comparison();
    if (level == kLevels.size()) return unary(true);
    const Node* left = operation(level + 1);
    for (;;) {
      const auto found =
          std::ranges::find_if(kLevels[level], [&](std::string_view op) { return token().is(op); });
      if (found == kLevels[level].end()) return left;
      Node& node = add(Kind::binary, {left}, std::string(*found));
      ++at_;
      node.parts.push_back(operation(level + 1));
      left = &node;
    }
  }

  const Node* negation() {
    if (!token().is("not")) return operation(3);
    const Nesting nesting(*this);
    Node& node = add(Kind::unary, {}, "not");
    ++at_;
    node.parts = {negation()};
    return &node;
  }

  const Node* comparison() {
    static const Words kOps = {"==", "!=", "<=", ">=", "<", ">"};
    const Node* first = operation(4);
    Node* node = nullptr;
    for (;;) {
      std::string op;
      if (std::ranges::any_of(kOps, [&](std::string_view o) { return token().is(o); })) {
        op = token().text;
      } else if (token().is("in")) {
        op = "in";
      } else if (token().is("not") && token(1).is("in")) {
        op = "not in";
        ++at_;
      } else {
        return node ? node : first;
      }
      if (!node) node = &add(Kind::comparison, {first});
      ++at_;
      node->names.push_back(op);
      node->parts.push_back(operation(4));
    }
  }

  const Node* unary(bool with_filters) {
    const Nesting nesting(*this);
    const Node* node = nullptr;
    if (token().is("-") || token().is("+")) {
      Node& sign = add(Kind::unary, {}, token().text);
      ++at_;
      sign.parts = {unary(false)};
      node = &sign;
    } else {
      node = primary();
    }
    node = postfix(node);
    return with_filters ? filters(node) : node;
  }

  const Node* primary() {
    const Token& t = token();
    switch (t.kind) {
      case Token::Kind::name:
        return name_or_constant();
      case Token::Kind::string: {
        std::string all;
        while (token().kind == Token::Kind::string) all += tokens_[at_++].text;
        return literal(std::make_shared<const std::string>(std::move(all)));
      }
      case Token::Kind::integer:
      case Token::Kind::number:
        return number();
      default:
        break;
    }
    if (skip("(")) return parenthesis();
    if (skip("[")) {
      Node& list = add(Kind::list);
      while (!skip("]")) {
        if (!list.parts.empty()) {
          expect(",");
          if (skip("]")) break;
        }
        list.parts.push_back(expression());
      }
      return &list;
    }
    if (skip("{")) return dict();
    fail_expecting("an expression");
  }

  const Node* literal(Value value) {
    Node& node = add(Kind::literal);
    node.value = std::move(value);
    return &node;
  }
  const Node* name_or_constant() {
    const std::string& text = token().text;
    if (text == "true" || text == "True" || text == "false" || text == "False") {
      const bool value = text[0] == 't' || text[0] == 'T';
      ++at_;
      return literal(value);
    }
    if (text == "none" || text == "None") {
      ++at_;
      return literal(None{});
    }
    return &add(Kind::name, {}, name());
  }
  const Node* number() {
    const std::string& text = token().text;
    std::int64_t integer = 0;
    double number = 0;
    const bool whole = token().kind == Token::Kind::integer;
    const char *begin = text.data(), *end = begin + text.size();
    const auto result =
        whole ? std::from_chars(begin, end, integer) : std::from_chars(begin, end, number);
    if (result.ec != std::errc()) fail(concat(text, " is out of range"));
    ++at_;
    return literal(whole ? Value(integer) : Value(number));
  }
  const Node* parenthesis() {
    if (skip(")")) return &add(Kind::tuple);
    const Node* inside = tuple_expression();
    expect(")");
    return inside;
  }
  const Node* dict() {
    Node& node = add(Kind::dict);
    while (!skip("}")) {
      if (!node.parts.empty()) {
        expect(",");
        if (skip("}")) break;
      }
      node.parts.push_back(expression());
      expect(":");
      node.parts.push_back(expression());
    }
    return &node;
  }

  const Node* postfix(const Node* node) {
    for (;;) {
      if (skip(".")) {
        if (token().kind == Token::Kind::integer) {
          node = &add(Kind::item, {node, number()});
        } else {
          node = &add(Kind::attribute, {node}, name());
        }
      } else if (skip("[")) {
        node = subscript(node);
      } else if (token().is("(")) {
        node = call(node);
      } else {
        return node;
      }
    }
  }

  const Node* subscript(const Node* of) {
    std::vector<const Node*> parts = {of};
    bool slice = false;
    for (bool more = true; more && parts.size() < 4; more = skip(":")) {
      slice = slice || parts.size() > 1;
      parts.push_back(token().is(":") || token().is("]") ? nullptr : tuple_expression());
    }
    expect("]");
    if (!slice && !parts.back()) fail_expecting("an index");
    parts.resize(slice ? 4 : 2);
    return &add(slice ? Kind::slice : Kind::item, std::move(parts));
  }

  const Node* call(const Node* callee) {
    Node& node = add(Kind::call, {callee});
    arguments(node);
    return &node;
  }
  /// "(a, b=1)" of a call, if it is here.
  void arguments(Node& node) {
    if (!skip("(")) return;
    for (bool first = true; !skip(")"); first = false) {
      if (!first) {
        expect(",");
        if (skip(")")) return;
      }
      if (token().is("*") || token().is("**")) fail("arguments with * or ** are not known here");
      const bool named = token().kind == Token::Kind::name && token(1).is("=");
      node.names.push_back(named ? name() : "");
      if (named) expect("=");
      if (!named && node.names.size() > 1 && !node.names[node.names.size() - 2].empty())
        fail("an argument without a name behind one with a name");
      node.parts.push_back(expression());
    }
  }

  /// Filters, tests and calls behind an expression; `first`: a filter is here without its |.
  const Node* filters(const Node* node, bool first = false) {
    for (;; first = false) {
      if (first || skip("|")) {
        Node& filter = dotted(Kind::filter, node);
        arguments(filter);
        node = &filter;
      } else if (token().is("is")) {
        ++at_;
        node = test(node);
      } else if (token().is("(")) {
        node = call(node);
      } else {
        return node;
      }
    }
  }
  Node& dotted(Kind kind, const Node* of) {
    Node& node = add(kind, {of});
    node.text = name();
    while (skip(".")) node.text += "." + name();
    return node;
  }

  const Node* test(const Node* of) {
    const bool negated = skip("not");
    Node& node = dotted(Kind::test, of);
    static const Words kNoArgument = {"else", "or", "and", "if", "in", "not", "is"};
    const Token& t = token();
    const bool value = t.kind == Token::Kind::name || t.kind == Token::Kind::string ||
                       t.kind == Token::Kind::integer || t.kind == Token::Kind::number ||
                       t.is("[") || t.is("{");
    if (t.is("(")) {
      arguments(node);
    } else if (value &&
               std::ranges::none_of(kNoArgument, [&](std::string_view w) { return t.is(w); })) {
      node.names.emplace_back();
      node.parts.push_back(postfix(primary()));
    }
    return negated ? &add(Kind::unary, {&node}, "not") : &node;
  }

  const std::string& origin_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0, loops_ = 0;
  Program program_;
};

}  // namespace

Program parse(std::string_view source, const std::string& origin) {
  if (source.size() > kMostSource)
    throw FormatError(
        concat(origin, ": ", source.size(), " bytes; a template has at most ", kMostSource));
  return Parser(replace_invalid_utf8(source), origin).run();
}

}  // namespace tessera::text::jinja
