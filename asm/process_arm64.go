package asm

// cloneOrder puts the last two arguments of clone(2) into the port's order.
func cloneOrder(childTID, tls uintptr) (a3, a4 uintptr) { return tls, childTID }
