#include "engine/tensor/npz.h"

#include <fcntl.h>
#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"

namespace octet {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr uint32_t kMaxHeaderBytes = 1 << 16;
constexpr uint64_t kShortestPrefix = 10;  // Magic, version and length of the header.
// What a deflated byte can stand for, rounded up. Source: zlib, "Maximum Expansion Factor" (1032:1).
constexpr uint64_t kMostInflated = 1040;

struct ZipCloser {
  void operator()(zip_t* archive) const { zip_discard(archive); }
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};

// Closed with the object; below 0: errno says why it is not open.
struct OpenedFile {
  explicit OpenedFile(const std::string& path) : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~OpenedFile() {
    if (fd >= 0) ::close(fd);
  }
  OpenedFile(const OpenedFile&) = delete;
  OpenedFile& operator=(const OpenedFile&) = delete;
  const int fd;
};

std::optional<DType> ParseDescr(std::string_view descr) {
  static constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"|b1", DType::kBool}, {"|u1", DType::kU8},  {"|i1", DType::kI8},  {"<u2", DType::kU16},
      {"<i2", DType::kI16},  {"<u4", DType::kU32}, {"<i4", DType::kI32}, {"<u8", DType::kU64},
      {"<i8", DType::kI64},  {"<f2", DType::kF16}, {"<f4", DType::kF32}, {"<f8", DType::kF64},
  };
  for (const auto& [name, dtype] : kTypes) {
    if (name == descr) return dtype;
  }
  return std::nullopt;
}

// How the elements are in the file.
struct StoredSpec {
  TensorSpec spec;
  size_t element_bytes = 0;
  bool unicode = false;  // Strings of 4-byte code points, else of bytes.
};

// "|S12" and "<U3": strings of so many characters. None are no strings: a file of a few bytes would hold any number of them.
std::optional<StoredSpec> ParseStringDescr(std::string_view descr) {
  const bool unicode = descr.starts_with("<U");
  if (!unicode && !descr.starts_with("|S")) return std::nullopt;
  uint32_t length = 0;
  const char* const end = descr.data() + descr.size();
  const auto [next, error] = std::from_chars(descr.data() + 2, end, length);
  if (error != std::errc() || next != end || length == 0) return std::nullopt;
  return StoredSpec{{DType::kString, {}}, size_t{length} * (unicode ? 4 : 1), unicode};
}

// The text between `open` and `close` behind `'key':` in the header's dictionary literal.
std::optional<std::string_view> Field(std::string_view header, std::string_view key, char open,
                                      char close) {
  const size_t at = header.find(Format("'{}':", key));
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view rest = header.substr(at + key.size() + 3);
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  if (open != '\0') {
    if (rest.empty() || rest.front() != open) return std::nullopt;
    rest.remove_prefix(1);
  }
  const size_t end = rest.find(close);
  if (end == std::string_view::npos) return std::nullopt;
  return rest.substr(0, end);
}

// "3, 4", "3,", "".
absl::StatusOr<Shape> ParseExtents(std::string_view text) {
  Shape shape;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    if (*at == ' ' || *at == ',') {
      ++at;
      continue;
    }
    int64_t extent = 0;
    const auto [next, error] = std::from_chars(at, end, extent);
    if (error != std::errc() || extent < 0) return InvalidArgument("malformed shape '({})'", text);
    shape.push_back(extent);
    at = next;
  }
  return shape;
}

// Source: numpy.lib.format, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }".
absl::StatusOr<StoredSpec> ParseHeader(std::string_view header) {
  const auto descr = Field(header, "descr", '\'', '\'');
  const auto fortran = Field(header, "fortran_order", '\0', ',');
  const auto shape = Field(header, "shape", '(', ')');
  if (!descr || !fortran || !shape) return InvalidArgument("malformed .npy header");
  StoredSpec result;
  if (const auto dtype = ParseDescr(*descr)) {
    result = {{*dtype, {}}, SizeOf(*dtype)};
  } else if (const auto strings = ParseStringDescr(*descr)) {
    result = *strings;
  } else {
    return InvalidArgument("unsupported element type '{}'", *descr);
  }
  OCTET_ASSIGN_OR_RETURN(result.spec.shape, ParseExtents(*shape));
  if (*fortran != "False" && result.spec.shape.rank() > 1) {
    return InvalidArgument("Fortran order is not supported; save with numpy.ascontiguousarray");
  }
  if (!CheckedElements(result.spec.shape.dims())) {
    return InvalidArgument("shape too large: ({})", *shape);
  }
  return result;
}

// Reads some bytes; none at the end or on an error.
using ReadSome = std::function<int64_t(void* dst, uint64_t size)>;

constexpr std::string_view kHeader = "header";
constexpr std::string_view kElements = "elements";

// Reads exactly `size` bytes, those from `at` on of the array's header or elements.
absl::Status ReadFully(const ReadSome& read, void* dst, uint64_t size, std::string_view part,
                       uint64_t at) {
  auto* bytes = static_cast<char*>(dst);
  while (size > 0) {
    const int64_t got = read(bytes, size);
    if (got <= 0) {
      return InvalidArgument("truncated or corrupt array: byte {} of its {} cannot be read", at,
                             part);
    }
    bytes += got;
    at += static_cast<uint64_t>(got);
    size -= static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadHeaderText(const ReadSome& file) {
  unsigned char prefix[8];
  OCTET_RETURN_IF_ERROR(ReadFully(file, prefix, sizeof(prefix), kHeader, 0));
  if (std::memcmp(prefix, kMagic.data(), kMagic.size()) != 0) {
    return InvalidArgument("not an .npy array");
  }
  const int major = prefix[6];
  if (major < 1 || major > 3) {
    return InvalidArgument("unsupported .npy version {}", major);
  }
  unsigned char length_bytes[4] = {};
  const uint64_t length_size = major == 1 ? 2 : 4;
  OCTET_RETURN_IF_ERROR(ReadFully(file, length_bytes, length_size, kHeader, sizeof(prefix)));
  const uint32_t length = length_bytes[0] | length_bytes[1] << 8 | length_bytes[2] << 16 |
                          static_cast<uint32_t>(length_bytes[3]) << 24;
  if (length > kMaxHeaderBytes) return InvalidArgument("malformed .npy header");
  std::string text(length, '\0');
  OCTET_RETURN_IF_ERROR(
      ReadFully(file, text.data(), length, kHeader, sizeof(prefix) + length_size));
  return text;
}

// Elements of `length` bytes that are strings without the zeros at their end.
absl::StatusOr<Tensor> StringsIn(std::string_view stored, const StoredSpec& spec) {
  std::vector<std::string> utf8;
  std::vector<std::string_view> texts;
  for (int64_t i = 0; i < spec.spec.shape.elements(); ++i) {
    const std::string_view element = stored.substr(0, spec.element_bytes);
    stored.remove_prefix(element.size());
    if (spec.unicode) {
      std::string& text = utf8.emplace_back();
      for (size_t at = 0; at < element.size(); at += 4) {
        uint32_t point = 0;
        std::memcpy(&point, element.data() + at, 4);
        if (point > kMaxCodePoint) return InvalidArgument("element {} is no Unicode", i);
        AppendUtf8(point, text);
      }
    }
    texts.push_back(element);
  }
  if (spec.unicode) texts.assign(utf8.begin(), utf8.end());
  for (std::string_view& text : texts) text = text.substr(0, text.find_last_not_of('\0') + 1);
  return Tensor::Strings(spec.spec.shape, texts);
}

// Of memory, for an element on its way: a string is held as it is stored, as UTF-8, and by two views.
uint64_t BytesToRead(const StoredSpec& stored) {
  if (stored.spec.dtype != DType::kString) return stored.element_bytes;
  return stored.element_bytes + sizeof(std::string) + 2 * sizeof(std::string_view);
}

absl::Status CheckBytes(const StoredSpec& stored, uint64_t max_bytes) {
  // Bounded by elements first: bytes() of a hostile shape could wrap.
  const auto elements = static_cast<uint64_t>(stored.spec.shape.elements());
  if (elements <= max_bytes / BytesToRead(stored)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   "array of {} elements exceeds the limit of {} bytes, or what is left of it",
                   elements, max_bytes);
}

// Reads the header, and refuses one that claims more bytes of elements than there can be: before any memory is taken for them, for
// a header of a few bytes may claim gigabytes. `held`: bytes of the whole .npy, header included, as far as anybody knows.
absl::StatusOr<StoredSpec> ReadHeader(const ReadSome& file, uint64_t held, uint64_t max_bytes) {
  OCTET_ASSIGN_OR_RETURN(const std::string text, ReadHeaderText(file));
  OCTET_ASSIGN_OR_RETURN(StoredSpec stored, ParseHeader(text));
  OCTET_RETURN_IF_ERROR(CheckBytes(stored, max_bytes));
  const uint64_t claimed =
      static_cast<uint64_t>(stored.spec.shape.elements()) * stored.element_bytes;
  const uint64_t behind = held - std::min<uint64_t>(held, text.size() + kShortestPrefix);
  if (claimed > behind) {
    return InvalidArgument(
        "truncated or corrupt array: its header says {} bytes of elements, {} "
        "are there at most",
        claimed, behind);
  }
  return stored;
}

// The elements behind a header.
absl::StatusOr<Tensor> ReadElements(const ReadSome& file, const StoredSpec& stored) {
  const TensorSpec& spec = stored.spec;
  if (spec.dtype == DType::kString) {
    std::string bytes(static_cast<uint64_t>(spec.shape.elements()) * stored.element_bytes, '\0');
    OCTET_RETURN_IF_ERROR(ReadFully(file, bytes.data(), bytes.size(), kElements, 0));
    return StringsIn(bytes, stored);
  }
  Tensor tensor(spec.dtype, spec.shape);
  OCTET_RETURN_IF_ERROR(ReadFully(file, tensor.mutable_data(), tensor.bytes(), kElements, 0));
  return tensor;
}

// What a member holds at most: what the directory says, which may lie, and what its bytes in the file can be inflated to.
uint64_t MostHeld(zip_t* archive, zip_uint64_t index, uint64_t archive_bytes) {
  zip_stat_t stat;
  if (zip_stat_index(archive, index, 0, &stat) != 0) return 0;
  uint64_t stored = archive_bytes;
  if ((stat.valid & ZIP_STAT_COMP_SIZE) != 0) stored = std::min<uint64_t>(stored, stat.comp_size);
  uint64_t most = UINT64_MAX;  // Of other methods: what the directory says.
  if ((stat.valid & ZIP_STAT_COMP_METHOD) != 0 && stat.comp_method == ZIP_CM_STORE) most = stored;
  if ((stat.valid & ZIP_STAT_COMP_METHOD) != 0 && stat.comp_method == ZIP_CM_DEFLATE)
    most = stored * kMostInflated;
  return (stat.valid & ZIP_STAT_SIZE) != 0 ? std::min<uint64_t>(most, stat.size) : most;
}

// The checksum is looked at where a member ends, by who reads on.
absl::Status CheckEnd(zip_file_t* file) {
  char behind = 0;
  const zip_int64_t more = zip_fread(file, &behind, 1);
  if (more < 0) return absl::InvalidArgumentError(zip_file_strerror(file));
  if (more > 0) return absl::InvalidArgumentError("more bytes than the header says");
  return absl::OkStatus();
}

absl::StatusOr<Tensor> ReadMember(zip_t* archive, zip_uint64_t index, uint64_t archive_bytes,
                                  uint64_t max_bytes) {
  std::unique_ptr<zip_file_t, ZipCloser> file(zip_fopen_index(archive, index, 0));
  if (file == nullptr) return absl::InvalidArgumentError(zip_strerror(archive));
  const auto read = [&](void* dst, uint64_t size) { return zip_fread(file.get(), dst, size); };
  OCTET_ASSIGN_OR_RETURN(const StoredSpec stored,
                         ReadHeader(read, MostHeld(archive, index, archive_bytes), max_bytes));
  OCTET_ASSIGN_OR_RETURN(Tensor array, ReadElements(read, stored));
  OCTET_RETURN_IF_ERROR(CheckEnd(file.get()));
  return array;
}

// Of a regular file; of anything else nobody knows before it ends.
uint64_t BytesOf(const std::string& path) {
  std::error_code unknown;
  const uintmax_t bytes = std::filesystem::file_size(path, unknown);
  return unknown ? std::numeric_limits<uint64_t>::max() : bytes;
}

// As errno says.
absl::Status CannotOpen(const std::string& path) {
  const int error = errno;
  if (error == ENOENT) return NotFound("no such file: {}", path);
  return InvalidArgument("cannot open {}: {}", path, std::generic_category().message(error));
}

ReadSome FromFile(int fd) {
  return [fd](void* dst, uint64_t size) -> int64_t {
    ssize_t got = -1;
    do {
      got = ::read(fd, dst, size);
    } while (got < 0 && errno == EINTR);
    return got;
  };
}

// Members that are open share the archive's place in the file.
struct OpenedArchive {
  explicit OpenedArchive(zip_t* opened) : zip(opened) {}
  const std::unique_ptr<zip_t, ZipCloser> zip;
  absl::Mutex in_use;  // Taken to read a member, where several threads may.
};
using Archive = std::shared_ptr<OpenedArchive>;

absl::StatusOr<Archive> OpenArchive(const std::string& path) {
  int code = 0;
  zip_t* const archive = zip_open(path.c_str(), ZIP_RDONLY, &code);
  if (archive != nullptr) return std::make_shared<OpenedArchive>(archive);
  if (code == ZIP_ER_NOENT) return NotFound("no such file: {}", path);
  if (code == ZIP_ER_OPEN) return CannotOpen(path);
  return InvalidArgument("not a readable .npz archive: {}", path);
}

// Calls `take(name without ".npy", index)` for every member. Errors: those of `take` with the member's name.
template <typename Take>
absl::Status ForEachMember(zip_t* archive, const std::string& path, Take take) {
  const zip_int64_t count = zip_get_num_entries(archive, 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const char* raw_name = zip_get_name(archive, static_cast<zip_uint64_t>(i), 0);
    std::string_view name = raw_name == nullptr ? std::string_view() : raw_name;
    const std::string where = Format("{}, member '{}'", path, name);
    if (!name.ends_with(".npy")) return InvalidArgument("{}: not an .npy member", where);
    name.remove_suffix(4);
    const absl::Status taken = take(std::string(name), static_cast<zip_uint64_t>(i));
    if (!taken.ok()) return Annotate(taken, where);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NpzArrays> ReadNpz(const std::string& path, uint64_t max_bytes) {
  OCTET_ASSIGN_OR_RETURN(const Archive archive, OpenArchive(path));
  const uint64_t archive_bytes = BytesOf(path);
  NpzArrays arrays;
  uint64_t left = max_bytes;
  OCTET_RETURN_IF_ERROR(ForEachMember(
      archive->zip.get(), path, [&](std::string name, zip_uint64_t index) -> absl::Status {
        OCTET_ASSIGN_OR_RETURN(Tensor array,
                               ReadMember(archive->zip.get(), index, archive_bytes, left));
        left -= std::min(left, MemoryBytes(array.view()));
        arrays.insert_or_assign(std::move(name), std::move(array));
        return absl::OkStatus();
      }));
  return arrays;
}

namespace {

// So that sizes of any shape that a file can hold fit 64 bits.
constexpr uint64_t kAnyBytes = uint64_t{1} << 62;
// Of a pass over elements.
constexpr size_t kPieceBytes = size_t{1} << 18;

class InMemory : public StoredArray {
 public:
  explicit InMemory(Tensor array) : StoredArray(array.spec()), array_(std::move(array)) {}
  absl::Status Read(uint64_t offset, uint64_t size, void* to) const override {
    if (size > 0) std::memcpy(to, static_cast<const std::byte*>(array_.data()) + offset, size);
    return absl::OkStatus();
  }

 private:
  Tensor array_;
};

class Spooled : public StoredArray {
 public:
  Spooled(TensorSpec spec, std::shared_ptr<const Spool> spool, uint64_t begin)
      : StoredArray(std::move(spec)), spool_(std::move(spool)), begin_(begin) {}
  absl::Status Read(uint64_t offset, uint64_t size, void* to) const override {
    return spool_->Read(begin_ + offset, size, to);
  }

 private:
  std::shared_ptr<const Spool> spool_;
  uint64_t begin_;
};

// A member that is not compressed.
class Member : public StoredArray {
 public:
  Member(TensorSpec spec, std::string where, Archive archive,
         std::unique_ptr<zip_file_t, ZipCloser> file, uint64_t begin)
      : StoredArray(std::move(spec)),
        where_(std::move(where)),
        archive_(std::move(archive)),
        file_(std::move(file)),
        begin_(begin) {}
  ~Member() override {
    const absl::MutexLock lock(&archive_->in_use);
    file_.reset();
  }
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;
  absl::Status Read(uint64_t offset, uint64_t size, void* to) const override {
    const absl::MutexLock lock(&archive_->in_use);
    if (zip_fseek(file_.get(), static_cast<zip_int64_t>(begin_ + offset), SEEK_SET) != 0)
      return InvalidArgument("{}: {}", where_, zip_file_strerror(file_.get()));
    return Annotate(
        ReadFully([&](void* dst, uint64_t most) { return zip_fread(file_.get(), dst, most); }, to,
                  size, kElements, offset),
        where_);
  }

 private:
  std::string where_;
  Archive archive_;  // Goes behind its member.
  std::unique_ptr<zip_file_t, ZipCloser> file_ ABSL_GUARDED_BY(archive_->in_use);
  uint64_t begin_;
};

class NpyFile : public StoredArray {
 public:
  NpyFile(TensorSpec spec, std::string path, std::unique_ptr<OpenedFile> file, uint64_t begin)
      : StoredArray(std::move(spec)),
        path_(std::move(path)),
        file_(std::move(file)),
        begin_(begin) {}
  absl::Status Read(uint64_t offset, uint64_t size, void* to) const override {
    uint64_t at = begin_ + offset;
    const auto read = [&](void* dst, uint64_t most) -> int64_t {
      ssize_t got = -1;
      do {
        got = ::pread(file_->fd, dst, most, static_cast<off_t>(at));
      } while (got < 0 && errno == EINTR);
      if (got > 0) at += static_cast<uint64_t>(got);
      return got;
    };
    return Annotate(ReadFully(read, to, size, kElements, offset), path_);
  }

 private:
  std::string path_;
  std::unique_ptr<OpenedFile> file_;
  uint64_t begin_;
};

// Passes over elements, into the spool where there is one.
absl::Status PassOver(const ReadSome& file, uint64_t bytes, Spool* into) {
  std::vector<std::byte> piece(std::min<uint64_t>(bytes, kPieceBytes));
  for (uint64_t at = 0; at < bytes;) {
    const size_t size = std::min<uint64_t>(bytes - at, piece.size());
    OCTET_RETURN_IF_ERROR(ReadFully(file, piece.data(), size, kElements, at));
    if (into != nullptr) OCTET_RETURN_IF_ERROR(into->Append(piece.data(), size));
    at += size;
  }
  return absl::OkStatus();
}

// What is behind a header, copied.
absl::StatusOr<std::shared_ptr<const StoredArray>> Copied(const ReadSome& file,
                                                          const StoredSpec& stored,
                                                          const std::shared_ptr<Spool>& spool) {
  if (stored.spec.dtype == DType::kString) {
    OCTET_RETURN_IF_ERROR(CheckBytes(stored, kMostInMemory));
    OCTET_ASSIGN_OR_RETURN(Tensor array, ReadElements(file, stored));
    return std::make_shared<InMemory>(std::move(array));
  }
  const uint64_t begin = spool->size();
  OCTET_RETURN_IF_ERROR(PassOver(file, stored.spec.bytes(), spool.get()));
  return std::make_shared<Spooled>(stored.spec, spool, begin);
}

absl::StatusOr<std::shared_ptr<const StoredArray>> OpenMember(const Archive& archive,
                                                              zip_uint64_t index,
                                                              const std::string& path,
                                                              const std::string& name,
                                                              const Placement& placement) {
  zip_t* const zip = archive->zip.get();
  std::unique_ptr<zip_file_t, ZipCloser> file(zip_fopen_index(zip, index, 0));
  if (file == nullptr) return absl::InvalidArgumentError(zip_strerror(zip));
  const auto read = [&](void* dst, uint64_t size) { return zip_fread(file.get(), dst, size); };
  OCTET_ASSIGN_OR_RETURN(const StoredSpec stored,
                         ReadHeader(read, MostHeld(zip, index, BytesOf(path)), kAnyBytes));
  const bool in_place = placement.in_place && stored.spec.dtype != DType::kString &&
                        zip_file_is_seekable(file.get()) == 1;
  if (!in_place) {
    OCTET_ASSIGN_OR_RETURN(auto array, Copied(read, stored, placement.spool));
    OCTET_RETURN_IF_ERROR(CheckEnd(file.get()));
    return array;
  }
  const auto begin = static_cast<uint64_t>(zip_ftell(file.get()));
  OCTET_RETURN_IF_ERROR(PassOver(read, stored.spec.bytes(), nullptr));
  OCTET_RETURN_IF_ERROR(CheckEnd(file.get()));
  return std::make_shared<Member>(stored.spec, Format("{}, array '{}'", path, name), archive,
                                  std::move(file), begin);
}

}  // namespace

absl::StatusOr<StoredArrays> OpenNpz(const std::string& path, const Placement& placement) {
  OCTET_ASSIGN_OR_RETURN(const Archive archive, OpenArchive(path));
  StoredArrays arrays;
  OCTET_RETURN_IF_ERROR(ForEachMember(
      archive->zip.get(), path, [&](const std::string& name, zip_uint64_t index) -> absl::Status {
        OCTET_ASSIGN_OR_RETURN(arrays[name], OpenMember(archive, index, path, name, placement));
        return absl::OkStatus();
      }));
  return arrays;
}

absl::StatusOr<std::shared_ptr<const StoredArray>> OpenNpy(const std::string& path,
                                                           const Placement& placement) {
  auto file = std::make_unique<OpenedFile>(path);
  if (file->fd < 0) return CannotOpen(path);
  const ReadSome read = FromFile(file->fd);
  const auto stored = ReadHeader(read, BytesOf(path), kAnyBytes);
  if (!stored.ok()) return Annotate(stored.status(), path);
  const off_t begin = lseek(file->fd, 0, SEEK_CUR);  // None of a pipe.
  if (!placement.in_place || begin < 0 || stored->spec.dtype == DType::kString) {
    auto array = Copied(read, *stored, placement.spool);
    if (!array.ok()) return Annotate(array.status(), path);
    return array;
  }
  return std::make_shared<NpyFile>(stored->spec, path, std::move(file),
                                   static_cast<uint64_t>(begin));
}

}  // namespace octet
