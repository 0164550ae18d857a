package lwp

import (
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
)

// The collector does not see the stacks of threads, nor records. What a
// goroutine passes to a thread, roots keeps reachable: a function and an
// argument for each record, written only by goroutines, because to overwrite a
// pointer in the Go heap while the collector marks takes the write barrier
// that threads do not have. A record that a thread frees therefore stays
// rooted, on table.dirty, until a goroutine comes by: the next Start, or the
// next collection.
var roots struct {
	chunks [1 << indexBits / chunkSize]atomic.Pointer[[chunkSize]root]
	once   sync.Once
}

type root struct {
	fn  func(unsafe.Pointer)
	arg unsafe.Pointer
}

// setRoot keeps fn and arg reachable until unroot(i). The caller owns record i.
func setRoot(i uint32, fn func(unsafe.Pointer), arg unsafe.Pointer) {
	c := roots.chunks[i/chunkSize].Load()
	for c == nil {
		roots.chunks[i/chunkSize].CompareAndSwap(nil, new([chunkSize]root))
		c = roots.chunks[i/chunkSize].Load()
	}
	c[i%chunkSize] = root{fn, arg}
	roots.once.Do(atNextCollection)
}

func unroot(i uint32) { roots.chunks[i/chunkSize].Load()[i%chunkSize] = root{} }

// atNextCollection arranges for tidy to run once in every collection: the
// cleanup of an object that nothing refers to, which makes the next one.
func atNextCollection() {
	runtime.AddCleanup(new([16]byte), func(struct{}) { tidy(); atNextCollection() }, struct{}{})
}

// tidy collects detached threads that are gone, and unroots what threads have freed.
func tidy() {
	reap()
	if asm.Current() != nil {
		return
	}
	table.mu.Lock()
	i := table.dirty
	table.dirty = 0
	table.mu.Unlock()
	for i != 0 {
		r := recordAt(i)
		next := r.next
		r.freed(i)
		i = next
	}
}

// hasPointers says whether the collector has to look into values of type t.
func hasPointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return t.Len() > 0 && hasPointers(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if hasPointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	case reflect.Pointer, reflect.UnsafePointer, reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.Slice, reflect.String:
		return true
	}
	return false
}
