CREATE TABLE stars (name text, magnitude numeric); INSERT INTO stars VALUES ('Vega', 0.03), ('Sirius', -1.46);
