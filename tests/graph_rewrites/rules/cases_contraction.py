"""Einsum; linear in each factor apart."""

from .harness import Case


def einsum(equation, *shapes, note=""):
    return Case("Einsum", shapes, {"equation": equation}, "linear", note=note or equation)


CASES = [
    einsum("nij,njk->nik", ("N", 3, 4), ("N", 4, 2)),
    einsum("ij,jk", ("N", 4), (4, 2)),
    einsum("nba,ca", ("N", 3, 4), (2, 4)),
    einsum("nchw,kc->nkhw", ("N", 3, "H", "W"), (2, 3)),
    einsum("nhqd , nhkd -> nhqk", ("N", 2, 3, 4), ("N", 2, 5, 4)),
    einsum("nij->nji", ("N", 3, 4)),
    einsum("nij->ni", ("N", 3, 4), note="sum over one axis"),
    einsum("nij->n", ("N", 3, "W"), note="sum over two axes"),
    einsum("jni->n", (3, "N", 2), note="sum over axes around"),
    einsum("ni,ni->", ("N", 4), ("N", 4), note="inner product"),
    einsum("ni->", ("N", 4), note="sum of everything"),
    einsum("n,i,j->jni", ("N",), (3,), ("W",), note="outer product of three"),
    einsum("nij,nk->nik", ("N", 3, 4), ("N", 5), note="one factor's own sum"),
    einsum("nab,nbc,ncd->nad", ("N", 2, 3), ("N", 3, 4), ("N", 4, 2)),
    einsum("...ij,...jk->...ik", ("N", 2, 3, 4), ("N", 2, 4, 5)),
    einsum("...ij,jk->...ik", ("N", 2, 3, 4), (4, 5)),
    einsum("...ij,...jk->...ik", ("N", 1, 3, 4), ("N", 2, 4, 5), note="axis of 1, broadcast"),
    einsum("...ab,...bc->...ac", ("N", 2, 3, 4), ("N", 2, 4, 5), note="dots beside a"),
    einsum("...ij,...kj", ("N", 2, 3), ("N", 4, 3), note="dots, no arrow"),
    einsum("...i->...", ("N", 2, 3), note="dots, summed"),
    einsum("i...->...i", ("N", 2, 3), note="dots, turned"),
    einsum("nAi,nai->nAa", ("N", 2, 3), ("N", 4, 3), note="capital letters"),
    einsum("ni,ni->ni", ("N", 3), (1, 3), note="a batch of one, broadcast"),
    einsum("nci,nci->ni", ("N", 3, 4), ("N", 1, 4), note="summed axis of 1"),
    einsum("nii->ni", ("N", 3, 3), note="diagonal"),
    einsum("nii->n", ("N", 3, 3), note="trace"),
    einsum("ii", (3, 3), note="trace, no arrow"),
    einsum("iii->i", (3, 3, 3), note="diagonal of a cube"),
    einsum("iji,ji->ij", (3, 2, 3), (2, 3), note="diagonal beside another factor"),
    einsum("...ii->...i", ("N", 2, 3, 3), note="diagonal behind dots"),
    einsum("HH,nH->nH", ("H", "H"), ("N", "H"), note="free diagonal"),
    einsum("iijj->ij", (2, 2, 3, 3), note="two diagonals"),
]
