"""The arbiter as a process: real programs on the simulated card, over its real socket."""


def test_two_floods_get_their_shares_without_taking_part(make_node):
    node = make_node()
    one, two = node.run("one", "flood"), node.run("two", "flood")
    assert node.put("one", one, 300).code == ""
    assert node.put("two", two, 700).code == ""
    node.shares(0.5)
    shares = node.shares(2)
    print(shares, node.log())
    assert abs(shares["one"] - 30) < 3
    assert abs(shares["two"] - 70) < 3
