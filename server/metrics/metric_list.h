// Every metric that Octet exports: one line each. Members, exposition and documentation follow from
// these lists.
#pragma once

#include "server/metrics/cells.h"

/// METRIC(kind, member, name, help) of every variant; labels model, version, precision.
#define OCTET_VARIANT_METRICS(METRIC)                                                             \
  METRIC(LatencyHistogram, request_duration, "octet_request_duration_seconds",                    \
         "Time from the arrival of a request that ran to its answer, whatever its outcome.")      \
  METRIC(LatencyHistogram, queue_duration, "octet_queue_duration_seconds",                        \
         "Time that a request waited before a worker took it.")                                   \
  METRIC(LatencyHistogram, compute_input_duration, "octet_compute_input_duration_seconds",        \
         "Time to convert the requests of a batch from the wire, per batch.")                     \
  METRIC(LatencyHistogram, compute_duration, "octet_compute_duration_seconds",                    \
         "Time to run the model, per batch.")                                                     \
  METRIC(LatencyHistogram, compute_output_duration, "octet_compute_output_duration_seconds",      \
         "Time to write the answers of a batch, per batch.")                                      \
  METRIC(LatencyHistogram, plan_compile_duration, "octet_plan_compile_duration_seconds",          \
         "Time to compile the model for input shapes that it had no plan for.")                   \
  METRIC(RowsHistogram, batch_rows, "octet_batch_rows", "Rows that ran as one batch.")            \
  METRIC(CounterPer<CodeLabel>, requests, "octet_requests_total", "Finished requests by code.")   \
  METRIC(CounterPer<RouteLabel>, routed, "octet_routed_requests_total",                           \
         "Requests given to this precision, by the reason of the choice.")                        \
  METRIC(Counter, rows, "octet_rows_total", "Rows computed for requests.")                        \
  METRIC(Counter, padding_rows, "octet_padding_rows_total", "Rows computed to fill up batches.")  \
  METRIC(Counter, executions, "octet_executions_total", "Batches run.")                           \
  METRIC(GaugePer<BatchSizeLabel>, batch_time, "octet_batch_expected_seconds",                    \
         "Smoothed time of a batch by its compiled size, the next power of two, compilation "     \
         "aside; one of the measurements that batch sizes and refusals follow.")                  \
  METRIC(CounterPer<RefusalLabel>, refused, "octet_refused_requests_total",                       \
         "Requests that did not run for want of room or time, by reason.")                        \
  METRIC(Gauge, queue_depth, "octet_queue_depth", "Requests that wait.")                          \
  METRIC(Gauge, queue_bytes, "octet_queue_bytes", "Bytes of the requests that wait.")             \
  METRIC(Gauge, in_flight, "octet_in_flight_requests", "Requests accepted and not yet answered.") \
  METRIC(OptionalGauge, ready, "octet_variant_ready",                                             \
         "1 when the variant answers requests, else 0; none of one that was taken out.")          \
  METRIC(Gauge, resident_weight_bytes, "octet_resident_weight_bytes",                             \
         "Memory held by weights, packed forms included.")                                        \
  METRIC(Gauge, load_seconds, "octet_load_duration_seconds", "Time that the last load took.")     \
  METRIC(OptionalGauge, int8_mac_ratio, "octet_int8_mac_ratio",                                   \
         "Share of the model's multiply-adds that runs in int8, 0 to 1; none where it is not "    \
         "known at load: with open shapes.")                                                      \
  METRIC(LatencyHistogram, shadow_compute_duration, "octet_shadow_compute_duration_seconds",      \
         "Time to run the model for shadow copies, per batch; in no other metric.")               \
  METRIC(Gauge, shadow_queue_depth, "octet_shadow_queue_depth", "Shadow copies that wait.")       \
  METRIC(Gauge, shadow_queue_bytes, "octet_shadow_queue_bytes",                                   \
         "Bytes that shadow copies hold while they wait.")                                        \
  METRIC(Gauge, guard_tripped, "octet_guard_tripped",                                             \
         "1 from the window that breaks a rule of the guard until it recovers, else 0.")          \
  METRIC(CounterPer<GuardActionLabel>, guard_actions, "octet_guard_actions_total",                \
         "What the guard did.")                                                                   \
  METRIC(Gauge, ramp_share, "octet_ramp_share",                                                   \
         "Share of the model's traffic that a ramp gives to it, 0 to 1.")                         \
  METRIC(CounterPer<RampActionLabel>, ramp_actions, "octet_ramp_actions_total",                   \
         "What the ramp did.")

/// Of every pair that shadow traffic compares; labels model, version, precision (of the copies) and
/// against (of the answers). Once per output and request where nothing else is said.
#define OCTET_SHADOW_METRICS(METRIC)                                                             \
  METRIC(Counter, compared, "octet_shadow_compared_requests_total",                              \
         "Answered requests whose copy ran and was compared.")                                   \
  METRIC(CounterPer<ShadowDropLabel>, dropped, "octet_shadow_dropped_requests_total",            \
         "Copies that did not run, by reason.")                                                  \
  METRIC(Counter, failed, "octet_shadow_failed_requests_total", "Copies whose run failed.")      \
  METRIC(Counter, class_rows, "octet_shadow_class_rows_total", "Rows of class scores compared.") \
  METRIC(Counter, top1_agreed, "octet_shadow_top1_agreed_rows_total",                            \
         "Rows whose best class is that of the answer.")                                         \
  METRIC(Counter, top5_agreed, "octet_shadow_top5_agreed_rows_total",                            \
         "Rows whose five best classes hold the best one of the answer.")                        \
  METRIC(Counter, exact_elements, "octet_shadow_exact_elements_total",                           \
         "Elements of integer, boolean and string outputs compared.")                            \
  METRIC(Counter, exact_equal, "octet_shadow_exact_equal_elements_total",                        \
         "Elements of integer, boolean and string outputs that are equal.")                      \
  METRIC(Counter, non_finite, "octet_shadow_non_finite_elements_total",                          \
         "Elements without a difference: a NaN, or infinite on one side alone.")                 \
  METRIC(Counter, shape_mismatches, "octet_shadow_shape_mismatches_total",                       \
         "Outputs whose shape is not that of the answer.")                                       \
  METRIC(Counter, lost_outputs, "octet_shadow_lost_outputs_total",                               \
         "Outputs of floating point of another shape than the answer's, or with a NaN or an "    \
         "infinity where it is finite: one breaks a guard's sqnr_db.")                           \
  METRIC(DecibelHistogram, sqnr, "octet_shadow_sqnr_db",                                         \
         "Signal to noise ratio against the answer in decibels, equal outputs at 150; at -150 "  \
         "those that are not equal to an answer of zeros alone, and lost ones.")                 \
  METRIC(DifferenceHistogram, max_abs, "octet_shadow_max_abs_difference",                        \
         "Largest absolute difference to the answer.")                                           \
  METRIC(DifferenceHistogram, relative_l2, "octet_shadow_relative_l2",                           \
         "Euclidean norm of the difference over that of the answer, at most 1000.")              \
  METRIC(DifferenceHistogram, kl_divergence, "octet_shadow_kl_divergence_nats",                  \
         "Kullback-Leibler divergence from the answer, of outputs that are distributions.")

/// Of every version whose requests are captured; labels model and version.
#define OCTET_CAPTURE_METRICS(METRIC)                                                         \
  METRIC(Counter, drawn, "octet_capture_drawn_requests_total",                                \
         "Answered requests that were drawn: the sample is one of these.")                    \
  METRIC(Counter, requests, "octet_captured_requests_total",                                  \
         "Requests taken into the sample, those that were replaced later among them.")        \
  METRIC(Counter, rows, "octet_captured_rows_total", "Rows of these requests.")               \
  METRIC(CounterPer<CaptureDropLabel>, dropped, "octet_capture_dropped_requests_total",       \
         "Drawn requests that could not be taken, by reason.")                                \
  METRIC(Gauge, sample_requests, "octet_capture_sample_requests", "Requests in the sample.")  \
  METRIC(Gauge, sample_rows, "octet_capture_sample_rows", "Rows in the sample.")              \
  METRIC(Gauge, sample_bytes, "octet_capture_sample_bytes", "Memory of the sample.")          \
  METRIC(Counter, writes, "octet_capture_writes_total", "Times that its files were written.") \
  METRIC(Counter, write_failures, "octet_capture_write_failures_total",                       \
         "Times that a file could not be written.")

/// Of every variant of a model with state; labels model, version, precision.
#define OCTET_SEQUENCE_METRICS(METRIC)                                                \
  METRIC(Gauge, live, "octet_live_sequences", "Sequences that may go on.")            \
  METRIC(Gauge, state_bytes, "octet_sequence_state_bytes", "Memory of their states.") \
  METRIC(Counter, started, "octet_sequences_started_total", "Sequences that began.")  \
  METRIC(CounterPer<SequenceEndLabel>, ended, "octet_sequences_ended_total",          \
         "Sequences that are no longer live, by reason.")

/// Of every model with state; label model.
#define OCTET_MODEL_SEQUENCE_METRICS(METRIC)                                                 \
  METRIC(Gauge, waiting, "octet_sequence_waiting_requests",                                  \
         "Requests that wait for those before them in their sequence.")                      \
  METRIC(CounterPer<SequenceRefusalLabel>, refused, "octet_sequence_refused_requests_total", \
         "Requests that did not get into a sequence, by reason.")

/// Of the process as a whole; no labels.
#define OCTET_SERVER_METRICS(METRIC)                                                            \
  METRIC(CounterPer<CodeLabel>, unrouted, "octet_unrouted_requests_total",                      \
         "Requests refused before they waited for a precision, by code.")                       \
  METRIC(Gauge, ready, "octet_server_ready",                                                    \
         "1 while the server asks for requests: it has looked at its models, and is not about " \
         "to end; else 0.")                                                                     \
  METRIC(OptionalGauge, tls_not_after, "octet_tls_certificate_not_after_seconds",               \
         "Last second of the certificate that gRPC's port shows, since the Unix epoch; none "   \
         "without TLS.")                                                                        \
  METRIC(Counter, loads, "octet_model_loads_total", "Variants loaded.")                         \
  METRIC(Counter, load_failures, "octet_model_load_failures_total",                             \
         "Models, versions and variants that failed to load, each time that it was tried.")

namespace octet {

#define OCTET_METRIC_MEMBER(kind, member, name, help) kind member;

/// The metrics of one variant: an observation is an atomic addition. Thread-safety: safe.
struct VariantMetrics {
  OCTET_VARIANT_METRICS(OCTET_METRIC_MEMBER)
};

/// The metrics of one pair of precisions. Thread-safety: safe.
struct ShadowMetrics {
  OCTET_SHADOW_METRICS(OCTET_METRIC_MEMBER)
};

/// The metrics of one captured version. Thread-safety: safe.
struct CaptureMetrics {
  OCTET_CAPTURE_METRICS(OCTET_METRIC_MEMBER)
};

/// The metrics of one variant's sequences. Thread-safety: safe.
struct SequenceMetrics {
  OCTET_SEQUENCE_METRICS(OCTET_METRIC_MEMBER)
};

/// The metrics of one model's sequences. Thread-safety: safe.
struct ModelSequenceMetrics {
  OCTET_MODEL_SEQUENCE_METRICS(OCTET_METRIC_MEMBER)
};

/// The metrics of the process. Thread-safety: safe.
struct ServerMetrics {
  OCTET_SERVER_METRICS(OCTET_METRIC_MEMBER)
};

#undef OCTET_METRIC_MEMBER

}  // namespace octet
