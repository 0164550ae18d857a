package lwp

import "unsafe"

// OnOwnStack are the functions that a green thread has called on its thread's stack.
var OnOwnStack = map[string]func(unsafe.Pointer){
	"list": listFn, "unlist": unlistFn, "wake": wakeFns[recvSide], "wakeSender": wakeFns[sendSide], "close": closeRingFn,
	"seal": sealFn, "sent": sentFn, "post": postFn, "newCall": newCallFn, "freeCall": freeCallFn, "submit": submitFn,
}

// Widen has those who wait for r dawdle before they enter the list; naive has
// them sleep then without a second look.
func (r *Ring[T]) Widen(naive bool) { r.window, r.naive = 2000, naive }

// Waiting returns how many wait to receive from r.
func (r *Ring[T]) Waiting() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at := r.sides[recvSide].first; at != 0; n++ {
		at = (*ringWait)(pointer(at)).after
	}
	return n
}
