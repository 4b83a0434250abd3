-- One workspace. Times of day are ISO 8601 in UTC; steps are optimiser updates; seconds and flops are sums over a run.

PRAGMA application_id = 0x47524F4B;  -- "GROK": tells our file from any other program's SQLite
PRAGMA user_version = 2;             -- raise with every change to the tables below

CREATE TABLE experiments (
    id        TEXT PRIMARY KEY,
    name      TEXT NOT NULL,
    spec      TEXT NOT NULL,  -- JSON, complete
    spec_toml TEXT NOT NULL,  -- as a person writes it
    versions  TEXT NOT NULL,  -- JSON: package -> version
    created   TEXT NOT NULL,
    status    TEXT NOT NULL CHECK (status IN ('running', 'interrupted', 'finished'))
);

CREATE TABLE runs (
    id          TEXT PRIMARY KEY,  -- experiment/arm/seed
    experiment  TEXT NOT NULL REFERENCES experiments (id),
    arm         TEXT NOT NULL,
    seed        INTEGER NOT NULL,
    position    INTEGER NOT NULL,  -- of the arm in the spec
    status      TEXT NOT NULL DEFAULT 'pending'
                CHECK (status IN ('pending', 'running', 'grokked', 'exhausted', 'diverged')),
    steps       INTEGER NOT NULL DEFAULT 0,
    t_memorised INTEGER,
    t_grokked   INTEGER,
    t_stable    INTEGER,
    t_collapsed INTEGER,
    diverged_at INTEGER,
    seconds     REAL NOT NULL DEFAULT 0,
    flops       REAL NOT NULL DEFAULT 0,
    message     TEXT NOT NULL DEFAULT '',
    UNIQUE (experiment, arm, seed)
);

CREATE TABLE curves (
    run        TEXT NOT NULL REFERENCES runs (id),
    first_step INTEGER NOT NULL,
    last_step  INTEGER NOT NULL,
    block      BLOB NOT NULL,  -- safetensors: column name -> [E]
    PRIMARY KEY (run, first_step)
);

CREATE TABLE checkpoints (
    run  TEXT PRIMARY KEY REFERENCES runs (id),
    step INTEGER NOT NULL,
    file TEXT NOT NULL  -- name inside checkpoints/
);

CREATE TABLE events (
    time       TEXT NOT NULL,
    experiment TEXT NOT NULL REFERENCES experiments (id),
    run        TEXT REFERENCES runs (id),
    kind       TEXT NOT NULL,
    text       TEXT NOT NULL
);

CREATE INDEX events_of_experiment ON events (experiment);

CREATE TABLE verdicts (
    id       INTEGER PRIMARY KEY,
    study    TEXT NOT NULL,
    claim    TEXT NOT NULL,
    verdict  TEXT NOT NULL,
    evidence TEXT NOT NULL,  -- JSON
    created  TEXT NOT NULL
);
