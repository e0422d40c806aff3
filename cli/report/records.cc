#include "cli/report/records.h"

#include <algorithm>
#include <fstream>
#include <string_view>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

using Json = nlohmann::ordered_json;

bool HasText(const Json& object, const char* key) {
  return object.contains(key) && object[key].is_string();
}
bool HasNumber(const Json& object, const char* key) {
  return object.contains(key) && object[key].is_number();
}

bool IsQuantizeRecord(const Json& record) {
  const auto is_row = [](const Json& row) {
    return row.is_object() && HasText(row, "name") && HasText(row, "what") &&
           HasText(row, "detail");
  };
  return record.is_array() && std::ranges::all_of(record, [&](const Json& made) {
           return made.is_object() && HasText(made, "precision") && made.contains("records") &&
                  made["records"].is_array() && std::ranges::all_of(made["records"], is_row);
         });
}

bool IsTrainingRecord(const Json& record) {
  const auto is_epoch = [](const Json& row) {
    return row.is_object() && HasNumber(row, "epoch") && HasNumber(row, "held_back_loss") &&
           HasNumber(row, "agreement") && row.contains("train_loss") &&
           (row["train_loss"].is_null() || row["train_loss"].is_number());
  };
  return record.is_object() && HasText(record, "file") && HasNumber(record, "best_epoch") &&
         record.contains("epochs") && record["epochs"].is_array() &&
         std::ranges::all_of(record["epochs"], is_epoch);
}

absl::StatusOr<Json> Read(const std::string& file, std::string_view verb,
                          bool (*fits)(const Json& record)) {
  if (file.empty()) return Json();
  std::ifstream stream(file);
  if (!stream) return NotFound("cannot read what `octet {} --json` printed: '{}'", verb, file);
  Json record = Json::parse(stream, nullptr, false);
  if (fits(record)) return record;
  return InvalidArgument("expected what `octet {} --json` prints, got something else: '{}'", verb,
                         file);
}

}  // namespace

absl::StatusOr<Json> ReadQuantizeRecord(const std::string& file) {
  return Read(file, "quantize", IsQuantizeRecord);
}

absl::StatusOr<Json> ReadTrainingRecord(const std::string& file) {
  return Read(file, "qat", IsTrainingRecord);
}

}  // namespace octet::cli
