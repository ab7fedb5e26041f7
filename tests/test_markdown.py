from fw_rl.markdown import header, row


def test_a_table_has_a_cell_for_each_column():
    assert row("a", 1, None, "") == "| a | 1 | None |  |"
    assert header("", "b") == "|  | b |\n| --- | --- |"
