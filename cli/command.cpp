#include "cli/command.h"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <iostream>
#include <optional>
#include <sstream>

#include "cli/options.h"
#include "core/error.h"

namespace tessera::cli {
namespace {

/// CLI11's own PositiveNumber and NonNegativeNumber name the largest double there is as the limit.
std::function<std::string(const std::string&)> number_where(bool (*right)(double),
                                                            const char* wanted) {
  return [right, wanted](const std::string& text) {
    double value = 0;
    const bool good = CLI::detail::lexical_cast(text, value) && right(value);
    return good ? std::string() : concat("\"", text, "\" is not a number ", wanted);
  };
}

}  // namespace

Option& Option::required() {
  option_->required();
  return *this;
}

Option& Option::type_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Option& Option::show_default() {
  option_->capture_default_str();
  return *this;
}

Option& Option::one_each() {
  option_->allow_extra_args(false);
  return *this;
}

Option& Option::group(const std::string& heading) {
  option_->group(heading);
  return *this;
}

Option& Option::positive() {
  option_->check(number_where([](double x) { return x > 0; }, "above 0"), "POSITIVE");
  return *this;
}

Option& Option::non_negative() {
  option_->check(number_where([](double x) { return x >= 0; }, "from 0 up"), "NONNEGATIVE");
  return *this;
}

Option& Option::range(int low, int high) {
  option_->check(CLI::Range(low, high));
  return *this;
}

Option& Option::range(double low, double high) {
  option_->check(CLI::Range(low, high));
  return *this;
}

Option& Option::excludes(const Option& other) {
  option_->excludes(other.option_);
  return *this;
}

Option& Option::one_of(std::initializer_list<std::string> values) {
  option_->check(CLI::IsMember(std::vector<std::string>(values)));
  return *this;
}

Command Command::add_command(const std::string& name, const std::string& help) {
  return Command(app_->add_subcommand(name, help));
}

Run Command::choose(std::initializer_list<AddCommand> commands) {
  app_->require_subcommand(1);
  std::vector<std::pair<CLI::App*, Run>> all;
  for (const AddCommand add : commands) {
    Run work = add(*this);
    all.emplace_back(app_->get_subcommands([](CLI::App*) { return true; }).back(), std::move(work));
  }
  return [all]() -> int {
    for (const auto& [command, work] : all) {
      if (command->parsed()) return work();
    }
    return kUsage;
  };
}

Option Command::add_flag(const std::string& names, bool& value, const std::string& help) {
  return Option(app_->add_flag(names, value, help));
}

void Command::footer(const std::string& text) { app_->footer(text); }

Program::Program(const std::string& description, const std::string& footer,
                 const std::string& version)
    : Command(new CLI::App(description, "tessera")) {
  app_->set_version_flag("--version", version);
  app_->get_formatter()->column_width(34);
  app_->footer(footer);
  app_->failure_message([](const CLI::App*, const CLI::Error& error) {
    return concat("tessera: ", error.what(), "\nRun with --help for more information.\n");
  });
}

Program::~Program() { delete app_; }

int Program::run(int argc, char** argv, std::initializer_list<AddCommand> commands) {
  const Run work = choose(commands);
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (argc > 1 && argv[1][0] != '-' && app_->get_subcommands().empty()) {
      report(concat("\"", argv[1], "\" is not a command; tessera --help lists them"));
      return kUsage;
    }
    std::ostringstream help;
    const int code = app_->exit(error, help);
    print(help.str());
    return code == 0 ? kOk : kUsage;
  }
  std::cerr.rdbuf(nullptr);  // OpenCV's own words about a bad file; report() does not use it
  return work();
}

template <class T>
Option Command::add_option(const std::string& names, T& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}

using std::string;
template Option Command::add_option(const string&, string&, const string&);
template Option Command::add_option(const string&, int&, const string&);
template Option Command::add_option(const string&, double&, const string&);
template Option Command::add_option(const string&, std::int64_t&, const string&);
template Option Command::add_option(const string&, std::uint64_t&, const string&);
template Option Command::add_option(const string&, std::optional<std::int64_t>&, const string&);
template Option Command::add_option(const string&, std::optional<std::uint64_t>&, const string&);
template Option Command::add_option(const string&, std::optional<double>&, const string&);
template Option Command::add_option(const string&, std::optional<std::string>&, const string&);
template Option Command::add_option(const string&, std::vector<string>&, const string&);

}  // namespace tessera::cli
