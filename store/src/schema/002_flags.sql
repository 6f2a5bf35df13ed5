-- What is odd about a line of the list, as a JSON array of words.

ALTER TABLE exchange ADD COLUMN flags TEXT NOT NULL DEFAULT '[]';
