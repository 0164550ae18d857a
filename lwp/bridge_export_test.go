package lwp

import "unsafe"

// OnOwnStack are the functions that a green thread has called on its thread's stack.
var OnOwnStack = map[string]func(unsafe.Pointer){
	"list": listFn, "unlist": unlistFn, "wake": wakeFns[recvSide], "wakeSender": wakeFns[sendSide], "close": closeRingFn,
	"seal": sealFn, "sent": sentFn, "post": postFn, "newCall": newCallFn, "freeCall": freeCallFn, "submit": submitFn,
}

// Naive has those who wait for r sleep without a second look.
func (r *Ring[T]) Naive() { r.naive = true }

// Waiting returns how many wait to receive from r.
func (r *Ring[T]) Waiting() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at := r.sides[recvSide].first; at != 0; n++ {
		at = (*ringWait)(pointer(at)).after
	}
	return n
}
