#include "core/text_file.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>

#include "core/error.h"

namespace tessera {

std::string read_text_file(const std::filesystem::path& file) {
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored))
    throw IoError(concat(file.string(), ": is a directory; give a file"));
  std::ifstream in(file, std::ios::binary);
  std::string all{std::istreambuf_iterator<char>(in), {}};
  if (!in) throw IoError(concat(file.string(), ": can't be read"));
  return all;
}

bool has_ending(const std::filesystem::path& file,
                std::initializer_list<std::string_view> endings) {
  std::string ending = file.extension().string();
  std::ranges::transform(ending, ending.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::ranges::count(endings, std::string_view(ending)) > 0;
}

std::vector<std::filesystem::path> files_below(
    const std::filesystem::path& folder,
    const std::function<bool(const std::filesystem::path&)>& wanted, std::error_code& error) {
  std::vector<std::filesystem::path> found;
  for (std::filesystem::recursive_directory_iterator
           it(folder, std::filesystem::directory_options::skip_permission_denied, error),
       end;
       !error && it != end; it.increment(error)) {
    if (it->is_regular_file(error) && wanted(it->path())) found.push_back(it->path());
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace tessera
