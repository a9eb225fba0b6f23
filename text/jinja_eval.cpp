#include "text/jinja_eval.h"

#include <algorithm>

#include "core/error.h"
#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

/// Names and what is around them.
struct Scope {
  Variables names;
  std::shared_ptr<Scope> outer;
};

constexpr int kMostDepth = 400;  // of expressions, blocks and macros in each other

class Interpreter {
 public:
  Interpreter(Runtime& rt, Variables variables) : rt_(rt) {
    push(std::move(variables));
    push();
  }

  Output run(const Node& root) {
    execute(root);
    return std::move(written_);
  }

 private:
  enum class Flow { normal, leave, next };

  /// Counts what is inside of what, and says in which line that is.
  struct Depth {
    Depth(Interpreter& i, const Node& node) : in(i) {
      in.rt_.line = node.line;
      in.rt_.spend(1);
      if (++in.depth_ > kMostDepth) in.rt_.fail("the template calls itself too often");
    }
    ~Depth() { --in.depth_; }
    Interpreter& in;
  };

  void push(Variables names = {}) {
    scope_ = std::make_shared<Scope>(Scope{std::move(names), scope_});
  }
  void pop() { scope_ = scope_->outer; }

  // --- statements ---

  void write(std::string_view text) {
    rt_.take(text.size());
    *out_ += text;
  }

  Flow execute(const Node& node) {
    const Depth depth(*this, node);
    switch (node.kind) {
      case Kind::output:
        write(node.text);
        return Flow::normal;
      case Kind::print:
        write(str(rt_, evaluate(*node.parts[0])));
        return Flow::normal;
      case Kind::block:
        return block(node);
      case Kind::branch:
        return branch(node);
      case Kind::loop:
        return loop(node);
      case Kind::leave:
        return Flow::leave;
      case Kind::next:
        return Flow::next;
      case Kind::with:
        return with(node);
      default:
        other_statement(node);
        return Flow::normal;
    }
  }

  void other_statement(const Node& node) {
    switch (node.kind) {
      case Kind::assign:
        return assign_to(*node.parts[0], evaluate(*node.parts[1]));
      case Kind::capture: {
        const Value text = captured(*node.parts[1]);
        return assign_to(*node.parts[0], node.parts[2] ? of_block(*node.parts[2], text) : text);
      }
      case Kind::macro:
        scope_->names[node.text] = macro(node);
        return;
      case Kind::call_block: {
        const Node& call = *node.parts[0];
        Args args = arguments(call);
        args.named.emplace_back("caller", macro(*node.parts[1]));
        return write(str(rt_, called(*call.parts[0], args)));
      }
      case Kind::filtered:
        return write(str(rt_, of_block(*node.parts[0], captured(*node.parts[1]))));
      case Kind::generation: {
        const std::size_t begin = out_->size();
        write(*as_text(captured(*node.parts[0])));
        if (out_ == &written_.text) written_.generated.emplace_back(begin, out_->size());
        return;
      }
      default:
        rt_.fail("a part of a template where none can be");
    }
  }

  Flow block(const Node& node) {
    for (const Node* part : node.parts)
      if (const Flow flow = execute(*part); flow != Flow::normal) return flow;
    return Flow::normal;
  }

  Flow branch(const Node& node) {
    std::size_t i = 0;
    for (; i + 1 < node.parts.size(); i += 2)
      if (truth(evaluate(*node.parts[i]))) return execute(*node.parts[i + 1]);
    return i < node.parts.size() ? execute(*node.parts[i]) : Flow::normal;
  }

  Flow loop(const Node& node) {
    Values items = elements(rt_, evaluate(*node.parts[1]));
    if (node.parts[3]) {
      Values kept;
      for (const Value& value : items) {
        push();
        assign_to(*node.parts[0], value);
        if (truth(evaluate(*node.parts[3]))) kept.push_back(value);
        pop();
      }
      items = std::move(kept);
    }
    if (items.empty()) return node.parts[4] ? execute(*node.parts[4]) : Flow::normal;
    Loop* const state = rt_.loop(std::move(items));
    for (; state->at < state->items.size(); ++state->at) {
      push();
      assign_to(*node.parts[0], state->items[state->at]);
      scope_->names["loop"] = state;
      const Flow flow = execute(*node.parts[2]);
      pop();
      if (flow == Flow::leave) break;
    }
    return Flow::normal;
  }

  Flow with(const Node& node) {
    Values values;
    for (std::size_t i = 1; i < node.parts.size(); i += 2)
      values.push_back(evaluate(*node.parts[i]));
    push();
    for (std::size_t i = 0; i < values.size(); ++i) assign_to(*node.parts[2 * i], values[i]);
    const Flow flow = execute(*node.parts.back());
    pop();
    return flow;
  }

  /// What a block writes, in a scope of its own.
  Value captured(const Node& node) {
    std::string text;
    std::string* const outer = std::exchange(out_, &text);
    push();
    execute(node);
    pop();
    out_ = outer;
    return rt_.text(std::move(text));
  }

  Value of_block(const Node& filter, const Value& text) {
    push({{kBlock, text}});
    const Value value = evaluate(filter);
    pop();
    return value;
  }

  void assign_to(const Node& target, const Value& value) {
    if (target.kind == Kind::name) {
      scope_->names[target.text] = value;
    } else if (target.kind == Kind::attribute) {
      const Value of = evaluate(*target.parts[0]);
      const auto* space = std::get_if<Dict*>(&of);
      if (!space || !(*space)->is_namespace)
        rt_.fail(concat(target.parts[0]->text, ".", target.text,
                        " can't be set: ", target.parts[0]->text, " is no namespace"));
      if (target.text.starts_with('_')) rt_.fail("a namespace keeps no name that begins with _");
      assign(rt_, **space, text_of(target.text), value);
    } else {
      const Values parts = elements(rt_, value);
      if (parts.size() != target.parts.size())
        rt_.fail(concat(parts.size(), " values for ", target.parts.size(), " names"));
      for (std::size_t i = 0; i < parts.size(); ++i) assign_to(*target.parts[i], parts[i]);
    }
  }

  // --- macros ---

  Value macro(const Node& node) {
    return rt_.function(node.text, [this, &node, scope = scope_](Runtime&, const Args& args) {
      return call_macro(node, scope, args);
    });
  }

  /// A macro sees what is around it where it was made, not where it is called.
  Value call_macro(const Node& node, const std::shared_ptr<Scope>& made, const Args& args) {
    const auto caller = std::exchange(scope_, made);
    push();
    bind(node, args);
    const Value text = captured(*node.parts[0]);
    scope_ = caller;
    return text;
  }

  void bind(const Node& node, const Args& args) {
    const std::size_t count = node.names.size(), first_default = count + 1 - node.parts.size();
    if (args.list.size() > count)
      rt_.fail(concat("the macro ", node.text, " takes at most ", count, " arguments"));
    for (const auto& [name, value] : args.named) {
      if (name != "caller" && !std::ranges::count(node.names, name))
        rt_.fail(concat("the macro ", node.text, " has no parameter ", name));
      scope_->names[name] = value;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const Value* given = args.find(i, node.names[i]);
      Value value = given ? *given : Value(Undefined{});
      if (!given && i >= first_default) value = evaluate(*node.parts[1 + i - first_default]);
      scope_->names[node.names[i]] = std::move(value);
    }
  }

  // --- expressions ---

  Value evaluate(const Node& node) {
    const Depth depth(*this, node);
    switch (node.kind) {
      case Kind::literal:
        return node.value;
      case Kind::name:
        return named(node.text);
      case Kind::list:
      case Kind::tuple:
        return sequence(node);
      case Kind::dict:
        return dict(node);
      case Kind::unary:
        return unary(node);
      case Kind::binary:
        return binary(node);
      case Kind::comparison:
        return comparison(node);
      case Kind::choice:
        if (truth(evaluate(*node.parts[1]))) return evaluate(*node.parts[0]);
        return node.parts.size() > 2 ? evaluate(*node.parts[2]) : Value(Undefined{});
      case Kind::attribute:
        return attribute(rt_, evaluate(*node.parts[0]), node.text);
      case Kind::item:
        return element(node);
      case Kind::slice:
        return sliced(node);
      case Kind::call:
        return call(node);
      case Kind::filter:
        return filtered(node, evaluate(*node.parts[0]));
      case Kind::test:
        return tested(node);
      default:
        rt_.fail("a part of a template where no value can be");
    }
  }

  Value named(const std::string& name) {
    for (const Scope* scope = scope_.get(); scope; scope = scope->outer.get())
      if (const auto found = scope->names.find(name); found != scope->names.end())
        return found->second;
    return global(rt_, name);
  }

  Value sequence(const Node& node) {
    Values items;
    for (const Node* part : node.parts) items.push_back(evaluate(*part));
    return rt_.list(std::move(items), node.kind == Kind::tuple);
  }

  Value dict(const Node& node) {
    Dict* out = rt_.dict();
    for (std::size_t i = 0; i + 1 < node.parts.size(); i += 2) {
      const Value key = evaluate(*node.parts[i]);
      assign(rt_, *out, key, evaluate(*node.parts[i + 1]));
    }
    return out;
  }

  Value unary(const Node& node) {
    const Value value = evaluate(*node.parts[0]);
    if (node.text == "not") return !truth(value);
    return node.text == "-" ? compute(rt_, "-", std::int64_t{0}, value)
                            : compute(rt_, "+", std::int64_t{0}, value);
  }

  Value binary(const Node& node) {
    const Value left = evaluate(*node.parts[0]);
    if (node.text == "and") return truth(left) ? evaluate(*node.parts[1]) : left;
    if (node.text == "or") return truth(left) ? left : evaluate(*node.parts[1]);
    const Value right = evaluate(*node.parts[1]);
    rt_.line = node.line;
    if (node.text == "~") return rt_.text(str(rt_, left) + str(rt_, right));
    return compute(rt_, node.text, left, right);
  }

  Value comparison(const Node& node) {
    Value left = evaluate(*node.parts[0]);
    for (std::size_t i = 0; i < node.names.size(); ++i) {
      Value right = evaluate(*node.parts[i + 1]);
      if (!holds(node.names[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }
  bool holds(const std::string& op, const Value& a, const Value& b) {
    if (op == "==") return equal(rt_, a, b);
    if (op == "!=") return !equal(rt_, a, b);
    if (op == "in") return contains(rt_, b, a);
    if (op == "not in") return !contains(rt_, b, a);
    const int o = order(rt_, a, b);
    return op == "<" ? o < 0 : op == "<=" ? o <= 0 : op == ">" ? o > 0 : o >= 0;
  }

  Value element(const Node& node) {
    const Value of = evaluate(*node.parts[0]);
    return item(rt_, of, evaluate(*node.parts[1]));
  }

  Value sliced(const Node& node) {
    Value parts[4] = {None{}, None{}, None{}, None{}};
    for (std::size_t i = 0; i < 4; ++i)
      if (node.parts[i]) parts[i] = evaluate(*node.parts[i]);
    return slice(rt_, parts[0], parts[1], parts[2], parts[3]);
  }

  /// Of a call, a filter or a test.
  Args arguments(const Node& node) {
    Args args;
    for (std::size_t i = 0; i < node.names.size(); ++i) {
      Value value = evaluate(*node.parts[i + 1]);
      if (node.names[i].empty()) {
        args.list.push_back(std::move(value));
      } else {
        args.named.emplace_back(node.names[i], std::move(value));
      }
    }
    return args;
  }

  Value call(const Node& node) {
    const Args args = arguments(node);
    rt_.line = node.line;
    return called(*node.parts[0], args);
  }

  Value called(const Node& callee, const Args& args) {
    Value function;
    if (callee.kind == Kind::attribute) {
      const Value of = evaluate(*callee.parts[0]);
      if (auto result = call_method(rt_, of, callee.text, args)) return std::move(*result);
      function = attribute(rt_, of, callee.text);
    } else {
      function = evaluate(callee);
    }
    if (const auto* known = std::get_if<Function*>(&function)) return (*known)->call(rt_, args);
    rt_.fail(concat(callee.text.empty() ? "this" : callee.text, "() can't be called: it is ",
                    kind_of(function)));
  }

  Value filtered(const Node& node, const Value& value) {
    const Args args = arguments(node);
    rt_.line = node.line;
    return apply_filter(rt_, node.text, value, args);
  }

  Value tested(const Node& node) {
    const Value value = evaluate(*node.parts[0]);
    const Args args = arguments(node);
    rt_.line = node.line;
    return apply_test(rt_, node.text, value, args);
  }

  Runtime& rt_;
  std::shared_ptr<Scope> scope_;
  Output written_;
  std::string* out_ = &written_.text;
  int depth_ = 0;
};

}  // namespace

Output run(const Program& program, Runtime& runtime, Variables variables) {
  return Interpreter(runtime, std::move(variables)).run(*program.root);
}

}  // namespace tessera::text::jinja
