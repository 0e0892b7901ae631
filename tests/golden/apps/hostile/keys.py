from patterns import Table

odd = Table("odd keys", "w")
odd.append({"": 1, "a b": 2, 'quo"te': 3, "semi;--": 4, "ä": 5, 7: "number", None: "none", "a.b": {"c.d": 1}})
odd.append({"a b": 3, "x" * 300: 1})
odd.append({"lone": "\ud800 surrogate", "nul": "a\x00b"})
odd.flush()
rows = odd.read()
assert len(rows) == 3 and rows[0]['quo"te'] == 3 and rows[0]["semi;--"] == 4 and rows[0]["7"] == "number"
assert odd.read_sql(f'select "a b", "quo""te" from {odd}')[0] == {"a b": 2, 'quo"te': 3}
assert len(odd.read_dataframe()) == 3
robert = Table("Robert'); DROP TABLE x;--", "w")
robert.replace([{"a": 1}])
robert.flush()
assert robert.read_sql(f"select a from {robert}") == [{"a": 1}]
robert.append({f"column {n}": n for n in range(1000)})
robert.flush()
assert robert.read()[-1]["column 999"] == 999
