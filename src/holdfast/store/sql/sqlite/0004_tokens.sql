-- Tokens: who may call a server on this store. Of the secret, only its hash is kept.
CREATE TABLE tokens (
    id      TEXT    NOT NULL PRIMARY KEY,
    scope   TEXT    NOT NULL,
    hash    BLOB    NOT NULL,
    created INTEGER NOT NULL,
    note    TEXT    NOT NULL
) WITHOUT ROWID;
