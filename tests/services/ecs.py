"""What Elastic has published of the Elastic Common Schema 8.17, as far as we use it, and the fields that are ours."""

# https://www.elastic.co/docs/reference/ecs/ecs-category-field-values-reference, as of ECS 8.17
KINDS = {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"}
OUTCOMES = {"success", "failure", "unknown"}
TYPES = {
    "api": "access admin allowed change creation deletion denied end info start user",
    "authentication": "start end info",
    "configuration": "access change creation deletion info",
    "database": "access change info error",
    "iam": "admin change creation deletion group info user",
    "process": "access change end info start",
}
# https://www.elastic.co/docs/reference/ecs/ecs-field-reference: the fields that may be told
FIELDS = {
    "@timestamp": "date",
    "message": "match_only_text",
    "ecs.version": "keyword",
    "event.id": "keyword",
    "event.kind": "keyword",
    "event.category": "keyword",
    "event.type": "keyword",
    "event.action": "keyword",
    "event.outcome": "keyword",
    "event.sequence": "long",
    "event.severity": "long",
    "event.provider": "keyword",
    "event.module": "keyword",
    "event.dataset": "keyword",
    "event.reason": "keyword",
    "user.id": "keyword",
    "related.user": "keyword",
    "trace.id": "keyword",
    "http.request.id": "keyword",
    "service.name": "keyword",
    "service.type": "keyword",
}

OWN_FIELDS = {
    "fl_gateway.prev_seq": "long",
    "fl_gateway.action": "keyword",
    "fl_gateway.resource": "keyword",
    "fl_gateway.outcome": "keyword",
    "fl_gateway.prev": "keyword",
    "fl_gateway.address_pseudonym": "keyword",
    "fl_gateway.details": "flattened",
}
