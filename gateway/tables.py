"""The gateway's own tables: the specification's (section 3.1) with what the promises add, all in the data map."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from audit.datamap import UtcDateTime, impersonal, personal

metadata = MetaData()
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Id = Uuid(as_uuid=False)

clients = Table(
    "clients",
    metadata,
    Column("client_id", Id, primary_key=True, info=personal("identifier", "names a client, at random")),
    Column("subject_id", Id, nullable=False, info=personal("identifier", "whose client it is")),
    Column("role", String(16), nullable=False, info=personal("access", "which scopes it may get")),
    Column("name", Json, info=personal("identifier", "what its owner calls it; sealed")),
    Column("name_index", String(64), info=personal("identifier", "finds it by name; keyed HMAC")),
    Column("device", Json, info=personal("device", "platform and capabilities; sealed")),
    Column("public_key", Json, info=personal("identifier", "checks its signatures; sealed")),
    Column("auth_method", String(32), nullable=False, info=impersonal("how it proves itself")),
    Column("secret_hash", String(64), info=personal("access", "SHA-256 of its secret")),
    Column("api_key_hash", String(64), unique=True, info=personal("access", "SHA-256 of its API key")),
    Column("jwks", Json, info=personal("access", "public keys that it proves itself with; sealed")),
    Column("subject_dn", Json, info=personal("access", "subject of its certificate; sealed")),
    Column("token_format", String(8), info=impersonal("opaque or jwt; null: opaque")),
    Column("redirect_uris", Json, info=impersonal("where codes of people may be sent; null: no people")),
    Column("outside_index", String(64), info=personal("identifier", "finds it by its issuer's name; HMAC")),
    Column("extra_scopes", String(200), info=impersonal("scopes given by name, beyond the role's")),
    Column("status", String(16), nullable=False, info=impersonal("active, suspended or revoked")),
    Column("registered_at", UtcDateTime, nullable=False, info=personal("access", "since when it takes part")),
    Column("last_seen_at", UtcDateTime, info=personal("access", "whether it is still there")),
    Index("clients_subject", "subject_id"),
    Index("clients_outside", "outside_index", unique=True),
    Column("last_chosen_at", UtcDateTime, info=personal("contribution", "when a round last chose it")),
    Index("clients_name", "name_index"),
    Index("clients_eligible", "status", "role", "last_seen_at"),
    Index("clients_age", "registered_at", "client_id"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True, info=personal("access", "SHA-256 of a bearer token")),
    Column(
        "client_id",
        Id,
        ForeignKey("clients.client_id", ondelete="CASCADE"),
        nullable=False,
        info=personal("identifier", "whose token it is"),
    ),
    Column("scope", Text, nullable=False, info=impersonal("what the token allows")),
    Column("kind", String(16), nullable=False, info=impersonal("access, refresh or registration")),
    Column("issued_at", UtcDateTime, nullable=False, info=personal("access", "when it was issued")),
    Column("expires_at", UtcDateTime, nullable=False, info=impersonal("when it ends")),
    Column("user_id", Id, info=personal("identifier", "the person for whom the client acts")),
    Column("family_id", Id, info=personal("access", "what began with the same consent")),
    Column("thumbprint", String(43), info=personal("access", "the certificate it is bound to (RFC 8705)")),
    Column("is_jwt", Boolean, info=impersonal("whether it speaks for itself (RFC 9068)")),
    Column("used_at", UtcDateTime, info=personal("access", "when a refresh token was exchanged")),
    Index("tokens_client", "client_id", "issued_at"),
    Index("tokens_expiry", "expires_at"),
    Index("tokens_family", "family_id"),
    Index("tokens_user", "user_id"),
)

revoked_tokens = Table(
    "revoked_tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True, info=personal("access", "SHA-256 of a JWT")),
    Column("client_id", Id, nullable=False, info=personal("identifier", "whose token it was")),
    Column("expires_at", UtcDateTime, nullable=False, info=impersonal("until when it must be refused")),
    Index("revoked_tokens_client", "client_id"),
    Index("revoked_tokens_expiry", "expires_at"),
)

authorization_codes = Table(
    "authorization_codes",
    metadata,
    Column("code_hash", String(64), primary_key=True, info=personal("access", "SHA-256 of a code")),
    Column("client_id", Id, nullable=False, info=personal("identifier", "the client it was given to")),
    Column("user_id", Id, nullable=False, info=personal("identifier", "the person who allowed it")),
    Column("family_id", Id, nullable=False, info=personal("access", "the tokens that follow from it")),
    Column("redirect_uri", Text, nullable=False, info=impersonal("where it was sent")),
    Column("scope", Text, nullable=False, info=impersonal("what it allows")),
    Column("code_challenge", String(43), nullable=False, info=impersonal("S256 of the verifier (RFC 7636)")),
    Column("issued_at", UtcDateTime, nullable=False, info=personal("access", "when it was issued")),
    Column("expires_at", UtcDateTime, nullable=False, info=impersonal("when it ends")),
    Column("used_at", UtcDateTime, info=personal("access", "when it was exchanged")),
    Index("authorization_codes_client", "client_id"),
    Index("authorization_codes_user", "user_id"),
    Index("authorization_codes_family", "family_id"),
    Index("authorization_codes_expiry", "expires_at"),
)

used_assertions = Table(
    "used_assertions",
    metadata,
    Column("jti_hash", String(64), primary_key=True, info=personal("access", "SHA-256 of client and jti")),
    Column("client_id", Id, nullable=False, info=personal("identifier", "who showed it")),
    Column("expires_at", UtcDateTime, nullable=False, info=impersonal("until when it must be refused")),
    Index("used_assertions_client", "client_id"),
    Index("used_assertions_expiry", "expires_at"),
)

users = Table(
    "users",
    metadata,
    Column("user_id", Id, primary_key=True, info=personal("identifier", "names a person, at random")),
    Column("subject_id", Id, nullable=False, info=personal("identifier", "whose account it is")),
    Column("role", String(16), nullable=False, info=personal("access", "which scopes it may get")),
    Column(
        "name", Json, nullable=False, info=personal("identifier", "what the person signs in with; sealed")
    ),
    Column("name_index", String(64), nullable=False, info=personal("identifier", "finds it by name; HMAC")),
    Column("password_hash", Json, info=personal("access", "argon2id of the password; sealed")),
    Column("totp", Json, info=personal("access", "secret of the one-time codes; sealed")),
    Column("totp_step", BigInteger, info=personal("access", "the newest step whose code was used")),
    Column("outside_index", String(64), info=personal("identifier", "finds it by the provider's name; HMAC")),
    Column("status", String(16), nullable=False, info=impersonal("active, suspended or revoked")),
    Column("extra_scopes", String(200), info=personal("access", "scopes given by name, beyond the role's")),
    Column("added_at", UtcDateTime, nullable=False, info=personal("access", "since when it may sign in")),
    Column("last_seen_at", UtcDateTime, info=personal("access", "when it last signed in")),
    Index("users_subject", "subject_id"),
    Index("users_name", "name_index", unique=True),
    Index("users_outside", "outside_index", unique=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_hash", String(64), primary_key=True, info=personal("access", "SHA-256 of a cookie")),
    Column(
        "user_id",
        Id,
        ForeignKey("users.user_id", ondelete="CASCADE"),
        nullable=False,
        info=personal("identifier", "who signed in"),
    ),
    Column("method", String(16), nullable=False, info=impersonal("password or openid")),
    Column("started_at", UtcDateTime, nullable=False, info=personal("access", "when it began")),
    Column("seen_at", UtcDateTime, nullable=False, info=personal("access", "when it was last used")),
    Column("expires_at", UtcDateTime, nullable=False, info=impersonal("when it ends")),
    Index("sessions_user", "user_id"),
    Index("sessions_expiry", "expires_at"),
)

models = Table(
    "models",
    metadata,
    Column("model_id", Id, primary_key=True, info=impersonal("names a model lineage")),
    Column("name", String(200), nullable=False, info=impersonal("what the operator calls the lineage")),
    Column("major", Integer, nullable=False, unique=True, info=impersonal("first number of its versions")),
    Column("schema", Json, nullable=False, info=impersonal("tensor names, dtypes and shapes")),
    Column("epsilon_budget", String(40), info=impersonal("privacy budget, decimal; null: no DP rounds")),
    Column("delta", String(40), info=impersonal("delta of the budget, decimal")),
    Column("ledger_version", BigInteger, nullable=False, info=impersonal("compare-and-set of the ledger")),
    Column("current_version", String(20), info=impersonal("base of the next round")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when it was registered")),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("version_id", Integer, primary_key=True, info=impersonal("row number")),
    Column("version", String(20), unique=True, nullable=False, info=impersonal("semantic version")),
    Column(
        "model_id", Id, ForeignKey("models.model_id"), nullable=False, info=impersonal("the lineage it is of")
    ),
    Column("round_number", Integer, info=impersonal("the round that made it; null for the first")),
    Column("accuracy", Float, info=impersonal("by the operator's evaluation")),
    Column("loss", Float, info=impersonal("by the operator's evaluation")),
    Column("model_blob_url", Text, nullable=False, info=impersonal("where its bytes are")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when it was published")),
    Column("checksum", String(64), nullable=False, info=impersonal("SHA-256 of its bytes, public")),
    Column("size_bytes", BigInteger, nullable=False, info=impersonal("length of its bytes")),
    Column("certificate", Json, info=impersonal("what the aggregation proved")),
    Index("model_versions_lineage", "model_id", "version_id"),
    Index("model_versions_blob", "model_blob_url"),
)

rounds = Table(
    "rounds",
    metadata,
    Column("round_id", Integer, primary_key=True, info=impersonal("row number")),
    Column("round_number", Integer, unique=True, nullable=False, info=impersonal("names the round")),
    Column("status", String(20), nullable=False, info=impersonal("state of the round")),
    Column("started_at", UtcDateTime, nullable=False, info=impersonal("when it was created")),
    Column("completed_at", UtcDateTime, info=impersonal("when it ended, well or not")),
    Column("global_model_version", String(20), nullable=False, info=impersonal("the base of the round")),
    Column("model_id", Id, ForeignKey("models.model_id"), nullable=False, info=impersonal("its lineage")),
    Column("result_version", String(20), info=impersonal("the model that it made")),
    Column("policy", Json, nullable=False, info=impersonal("aggregation and privacy policy")),
    Column("policy_hash", String(64), nullable=False, info=impersonal("digest of the policy")),
    Column("training_config", Json, nullable=False, info=impersonal("the operator's wishes for the clients")),
    Column("deadline", UtcDateTime, nullable=False, info=impersonal("until when updates count")),
    Column("planned_clients", Integer, nullable=False, info=impersonal("the planned count")),
    Column("min_clients", Integer, nullable=False, info=impersonal("fewest updates that make a model")),
    Column("closing", Boolean, nullable=False, info=impersonal("the operator closed it")),
    Column("num_updates", Integer, info=impersonal("updates in the frozen cohort")),
    Column("cohort", Json, info=impersonal("frozen ids of updates, which are random, in order")),
    Column("frozen_at", UtcDateTime, info=impersonal("when the cohort was fixed")),
    Column("ledger_id", Id, info=impersonal("its line in the privacy ledger")),
    Column("failure", String(64), info=impersonal("why it failed, a code")),
    Column("selection", Json, info=impersonal("how clients are chosen; null: all may come")),
    Column("acceptance", Json, info=impersonal("what the new model must reach; null: nothing")),
    Column("paused_at", UtcDateTime, info=impersonal("since when it is paused")),
    Column("extension_s", Integer, info=impersonal("by how much the deadline may be put off")),
    Column("extensions_left", Integer, info=impersonal("how often still")),
    Index("rounds_lineage_status", "model_id", "status"),
    Index("rounds_status", "status"),
    Index("rounds_completed", "completed_at"),
)

client_updates = Table(
    "client_updates",
    metadata,
    Column("update_id", Id, primary_key=True, info=personal("contribution", "names an update, at random")),
    Column(
        "round_id",
        Integer,
        ForeignKey("rounds.round_id"),
        nullable=False,
        info=personal("contribution", "the round it counts in"),
    ),
    Column("client_id", Id, nullable=False, info=personal("identifier", "who sent it")),
    Column("submitted_at", UtcDateTime, nullable=False, info=personal("contribution", "when it came")),
    Column("update_size_bytes", BigInteger, nullable=False, info=personal("contribution", "its length")),
    Column("training_metrics", Json, info=personal("contribution", "what the client reports; sealed")),
    Column(
        "status", String(16), nullable=False, info=personal("contribution", "accepted, counted or dropped")
    ),
    Column("blob_id", String(64), nullable=False, info=personal("contribution", "its blob, a random name")),
    Column("blob_key", String(64), nullable=False, info=personal("contribution", "id of the blob's key")),
    Column("norm", Json, nullable=False, info=personal("contribution", "its L2 norm; sealed")),
    Column("receipt", Json, nullable=False, info=personal("contribution", "the signed receipt; sealed")),
    Column("entry_id", Id, nullable=False, info=personal("contribution", "its entry in the log")),
    UniqueConstraint("round_id", "client_id", name="client_updates_once"),
    Index("client_updates_client", "client_id", "round_id"),
    Index("client_updates_round_status", "round_id", "status"),
    Index("client_updates_blob", "blob_id"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("invitation_id", Id, primary_key=True, info=personal("contribution", "names it, at random")),
    Column(
        "round_id",
        Integer,
        ForeignKey("rounds.round_id"),
        nullable=False,
        info=personal("contribution", "the round that chose the client"),
    ),
    Column("client_id", Id, nullable=False, info=personal("identifier", "whom the round chose")),
    Column("rank", Integer, nullable=False, info=personal("contribution", "place in the draw")),
    Column(
        "status",
        String(16),
        nullable=False,
        info=personal("contribution", "reserve, invited, replaced or withdrawn"),
    ),
    Column("created_at", UtcDateTime, nullable=False, info=personal("contribution", "when it was drawn")),
    Column("invited_at", UtcDateTime, info=personal("contribution", "when the client was asked")),
    Column("delivered_at", UtcDateTime, info=personal("contribution", "when the webhook took it")),
    UniqueConstraint("round_id", "client_id", name="invitations_once"),
    Index("invitations_client", "client_id", "status"),
    Index("invitations_history", "client_id", "round_id"),
    Index("invitations_round", "round_id", "status", "rank"),
)

switches = Table(
    "switches",
    metadata,
    Column("name", String(32), primary_key=True, info=impersonal("what it switches, such as the intake")),
    Column("is_on", Boolean, nullable=False, info=impersonal("its position")),
    Column("changed_at", UtcDateTime, nullable=False, info=impersonal("since when")),
)

settings_at_start = Table(
    "settings_at_start",
    metadata,
    Column("mode", String(16), primary_key=True, info=impersonal("which kind of process, such as web")),
    Column("name", String(64), primary_key=True, info=impersonal("a setting")),
    Column(
        "digest", String(64), nullable=False, info=impersonal("keyed hash of its value at the last start")
    ),
)

privacy_ledger = Table(
    "privacy_ledger",
    metadata,
    Column("ledger_id", Id, primary_key=True, info=impersonal("names a line")),
    Column("model_id", Id, nullable=False, info=impersonal("the lineage that pays")),
    Column("round_number", Integer, nullable=False, info=impersonal("the release it pays for")),
    Column("status", String(16), nullable=False, info=impersonal("reserved, spent or released")),
    Column("mechanism", Json, nullable=False, info=impersonal("noise multiplier, sampling rate, count")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when it was reserved")),
    Column("updated_at", UtcDateTime, nullable=False, info=impersonal("when its state changed")),
    Index("privacy_ledger_lineage", "model_id", "status"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("message_id", Id, primary_key=True, info=impersonal("names a message")),
    Column("queue", String(64), nullable=False, info=impersonal("where it goes")),
    Column("body", Json, nullable=False, info=impersonal("a hint: round number, update id")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when its effect was committed")),
    Column("about", Id, info=impersonal("the update or invitation that it tells of, a random id")),
    Index("outbox_order", "queue", "created_at"),
    Index("outbox_about", "about"),
)

notices = Table(
    "notices",
    metadata,
    Column("notice_id", Id, primary_key=True, info=impersonal("names a notice on its way to one target")),
    Column("target", String(255), nullable=False, info=impersonal("which of FLG_NOTICES, without addresses")),
    Column("dedupe_key", String(200), nullable=False, info=impersonal("its cause: each is told of once")),
    Column("kind", String(32), nullable=False, info=impersonal("what it is about")),
    Column("severity", Integer, nullable=False, info=impersonal("how soon somebody must look")),
    Column("subject_line", String(200), nullable=False, info=impersonal("its heading; it names nobody")),
    Column("text", Text, nullable=False, info=impersonal("what to do; it names nobody but a case")),
    Column("status", String(16), nullable=False, info=impersonal("waiting, sent or given_up")),
    Column("tries", Integer, nullable=False, info=impersonal("how often it was not taken")),
    Column("problem", String(64), info=impersonal("why it was not taken the last time, a code")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when its cause was committed")),
    Column("due_at", UtcDateTime, nullable=False, info=impersonal("when it is tried next")),
    Column("sent_at", UtcDateTime, info=impersonal("when the target took it")),
    UniqueConstraint("target", "dedupe_key", name="notices_once"),
    Index("notices_due", "status", "due_at"),
    Index("notices_age", "created_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column(
        "key_hash", String(64), primary_key=True, info=personal("access", "client, route and key, hashed")
    ),
    Column("client_id", Id, nullable=False, info=personal("identifier", "whose request it was")),
    Column("body_hmac", String(64), nullable=False, info=personal("access", "tells the same body again")),
    Column("status", Integer, nullable=False, info=impersonal("status of the first answer")),
    Column("answer", Json, nullable=False, info=personal("access", "the first answer; sealed")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("kept for 24 hours from here")),
    Index("idempotency_keys_client", "client_id"),
    Index("idempotency_keys_age", "created_at"),
)
