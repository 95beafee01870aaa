-- One row at most: the move to another store, or from one, that this one is part of.
CREATE TABLE house_move (
    id    text COLLATE "C" PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('leaving', 'left', 'arriving')),
    place text NOT NULL,
    at    text NOT NULL
);
