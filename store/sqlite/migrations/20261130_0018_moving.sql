-- One row at most: the move to another store, or from one, that this one is part of.
CREATE TABLE house_move (
    id    TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('leaving', 'left', 'arriving')),
    place TEXT NOT NULL,
    at    TEXT NOT NULL
);
