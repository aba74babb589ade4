// Printing the table.
#include "cli/combination_table.h"

#include <algorithm>
#include <iomanip>
#include <iostream>

namespace cambium::cli {

void print_table(const CombinationReport& report, double seconds) {
  std::size_t width = 6;
  for (const CombinedModule& m : report.modules) width = std::max(width, m.path.size());
  std::cout << std::left << std::setw(static_cast<int>(width)) << "module" << "  ranks -> rank  route       energy kept  error\n";
  for (const CombinedModule& m : report.modules) {
    std::string ranks;
    for (const std::int64_t r : m.source_ranks) ranks += (ranks.empty() ? "" : "+") + std::to_string(r);
    std::cout << std::left << std::setw(static_cast<int>(width)) << m.path << "  " << std::setw(13) << ranks + " -> " + std::to_string(m.rank) << "  " << std::setw(10) << m.route << "  ";
    if (m.error) std::cout << std::fixed << std::setprecision(6) << std::setw(11) << std::max(0.0, 1.0 - *m.error * *m.error) << "  " << std::scientific << std::setprecision(2) << *m.error << '\n';
    else std::cout << std::setw(11) << "-" << "  -\n";
  }
  std::cout << report.modules.size() << " modules, rank " << report.rank << ", largest error " << std::scientific << std::setprecision(2) << report.largest_error() << ", " << std::fixed
            << std::setprecision(3) << seconds << " s" << std::endl;
}

Json modules_json(const CombinationReport& report) {
  Json out = Json::array();
  for (const CombinedModule& m : report.modules)
    out.push_back({{"module", m.path}, {"source_ranks", m.source_ranks}, {"rank", m.rank}, {"route", m.route}, {"error", m.error ? Json(*m.error) : Json()}});
  return out;
}

}  // namespace cambium::cli
