#pragma once
#include <functional>
#include <initializer_list>
#include <string>

// The command line, by CLI11, whose header is read by command.cpp alone: it takes many seconds to
// compile.
namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace tessera::cli {

/// One option of a command.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}
  Option& required();
  /// What stands for its value in the help.
  Option& type_name(const std::string& name);
  /// The help tells the default.
  Option& show_default();
  /// A list that takes one value each time the option is given.
  Option& one_each();
  Option& group(const std::string& heading);
  /// Values outside are wrong usage.
  Option& positive();
  Option& non_negative();
  Option& range(int low, int high);
  Option& range(double low, double high);
  Option& one_of(std::initializer_list<std::string> values);
  /// Both together are wrong usage.
  Option& excludes(const Option& other);

 private:
  CLI::Option* option_;
};

class Command;
using Run = std::function<int()>;
/// Adds a command to the one it is given and returns what runs it.
using AddCommand = Run (*)(Command& parent);

/// The program or one of its commands.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}
  Command add_command(const std::string& name, const std::string& help);
  /// Adds commands, of which one has to be chosen; what runs the chosen one.
  Run choose(std::initializer_list<AddCommand> commands);
  /// names: "-t,--threads", or "FILE" for what stands without a dash. T: see the end of
  /// command.cpp.
  template <class T>
  Option add_option(const std::string& names, T& value, const std::string& help);
  Option add_flag(const std::string& names, bool& value, const std::string& help);
  /// What the help ends with.
  void footer(const std::string& text);

 protected:
  CLI::App* app_;
};

class Program : public Command {
 public:
  Program(const std::string& description, const std::string& footer, const std::string& version);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  /// Runs the command that the arguments choose and returns its exit code; help and wrong usage
  /// have their own.
  int run(int argc, char** argv, std::initializer_list<AddCommand> commands);
};

}  // namespace tessera::cli
