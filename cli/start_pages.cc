#include "cli/start_pages.h"

#include <link.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>

#include <sys/mman.h>

namespace octet::cli {
namespace {

int GiveBack(dl_phdr_info* object, size_t /*size*/, void* /*unused*/) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (const auto& segment : std::span(object->dlpi_phdr, object->dlpi_phnum)) {
    // What may have been written is no longer what the file says.
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const uintptr_t begin = (object->dlpi_addr + segment.p_vaddr) / page * page;
    const uintptr_t end = object->dlpi_addr + segment.p_vaddr + segment.p_memsz;
    // A page that stays costs memory alone: no error.
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 0;
}

/// Breakpoints are written into pages, and would be gone with them.
bool IsTraced() {
  std::ifstream status("/proc/self/status");
  std::string name;
  int tracer = 0;
  while (status >> name) {
    if (name == "TracerPid:") return status >> tracer && tracer != 0;
  }
  return false;
}

}  // namespace

void GiveBackStartPages() {
  if (!IsTraced()) dl_iterate_phdr(GiveBack, nullptr);
}

}  // namespace octet::cli
