package tls

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Errors of keys.
var (
	ErrNotThread = errors.New("tls: the caller is not a thread of this package")
	ErrThread    = errors.New("tls: keys are made and deleted on goroutines only")
	ErrKey       = errors.New("tls: the key was never made, or has been deleted")
	ErrKeys      = errors.New("tls: no room for another key")
	ErrSize      = errors.New("tls: the type is larger than MaxSize")
)

// DestructorPasses is how often a thread that ends goes through its set keys
// while destructors set keys again (PTHREAD_DESTRUCTOR_ITERATIONS).
const DestructorPasses = 4

// A Key names one value of type T in every thread, unset at first. Keys are
// small values, free to be copied; the zero Key is no key.
//
// The value lies in the TCB itself, where the collector does not look: what
// its pointers lead to must be kept alive elsewhere, or be off the Go heap.
type Key[T any] struct {
	tag uint64 // in the slot's first word while the slot is set
	at  uint16 // word in TCB.area
	id  uint8
}

// A slot is a word that holds the key's tag while it is set, then the value.
// Tags are never used twice, so what a deleted key leaves behind is not
// mistaken for a value of the key that takes its place.
//
// Threads read the table without a lock: a tag that is there before and after
// they read the rest of the entry says that it belongs together. Only
// goroutines write it, under mu, while the tag is 0.
var keys struct {
	mu   sync.Mutex
	used int              // words of area dealt out
	tag  uint64           // last tag given
	free map[int][]uint16 // places of deleted keys, by size in words
	// retired keeps the destructors of deleted keys: a thread may be about to
	// call one, and the collector does not see it.
	retired map[unsafe.Pointer]struct{}
	table   [MaxKeys]entry
}

type entry struct {
	tag        atomic.Uint64 // 0: no such key
	at         atomic.Uint32
	destructor unsafe.Pointer // a func(unsafe.Pointer), or nil
}

// NewKey makes a key. When a thread ends on which the key is set, destructor,
// if it is not nil, runs there with the value, which is by then unset. It is
// freestanding code and, if it is a closure, stays reachable from the key.
//
// Context: goroutine.
// Errors: ErrKeys, ErrSize; ErrThread on a thread.
func NewKey[T any](destructor func(*T)) (Key[T], error) {
	var v T
	size := int(unsafe.Sizeof(v))
	if size > MaxSize {
		return Key[T]{}, ErrSize
	}
	words := 1 + (size+wordSize-1)/wordSize
	id, at, tag, err := newKey(words, *(*unsafe.Pointer)(unsafe.Pointer(&destructor)))
	return Key[T]{tag, at, id}, err
}

func newKey(words int, destructor unsafe.Pointer) (id uint8, at uint16, tag uint64, err error) {
	if Current() != nil {
		return 0, 0, 0, ErrThread
	}
	keys.mu.Lock()
	defer keys.mu.Unlock()
	i := 0
	for i < MaxKeys && keys.table[i].tag.Load() != 0 {
		i++
	}
	if i == MaxKeys {
		return 0, 0, 0, ErrKeys
	}
	if f := keys.free[words]; len(f) > 0 {
		at, keys.free[words] = f[len(f)-1], f[:len(f)-1]
	} else {
		if keys.used+words > areaSize/wordSize {
			return 0, 0, 0, ErrKeys
		}
		at = uint16(keys.used)
		keys.used += words
	}
	keys.tag++
	e := &keys.table[i]
	e.at.Store(uint32(at))
	atomic.StorePointer(&e.destructor, destructor)
	e.tag.Store(keys.tag)
	return uint8(i), at, keys.tag, nil
}

// Delete ends the key. Values that threads still hold are forgotten when the
// thread ends at the latest, until when Get may find them; their destructors do
// not run, except where a thread ends at the same time. The destructor stays
// reachable for good.
//
// Context: goroutine.
// Errors: ErrKey; ErrThread on a thread.
func (k Key[T]) Delete() error {
	var v T
	return deleteKey(k.id, k.tag, 1+(int(unsafe.Sizeof(v))+wordSize-1)/wordSize)
}

func deleteKey(id uint8, tag uint64, words int) error {
	if Current() != nil {
		return ErrThread
	}
	keys.mu.Lock()
	defer keys.mu.Unlock()
	e := &keys.table[id]
	if tag == 0 || e.tag.Load() != tag {
		return ErrKey
	}
	e.tag.Store(0)
	if keys.free == nil {
		keys.free = map[int][]uint16{}
		keys.retired = map[unsafe.Pointer]struct{}{}
	}
	keys.retired[e.destructor] = struct{}{}
	keys.free[words] = append(keys.free[words], uint16(e.at.Load()))
	return nil
}

// Get returns the calling thread's value and whether it is set.
//
// Context: anywhere; never set on a goroutine.
func (k Key[T]) Get() (v T, ok bool) {
	if p := k.Ptr(); p != nil {
		return *p, true
	}
	return v, false
}

// Ptr returns the address of the calling thread's value, or nil where it is
// not set. It is good until the thread ends.
func (k Key[T]) Ptr() *T {
	t := Current()
	if t == nil {
		return nil
	}
	return k.In(&t.Storage)
}

// In returns the address of k's value in s, or nil where it is not set.
func (k Key[T]) In(s *Storage) *T {
	if k.tag == 0 || s.area[k.at] != k.tag {
		return nil
	}
	return (*T)(s.value(k.at))
}

// Set sets the calling thread's value.
//
// Context: thread.
// Errors: ErrNotThread on a goroutine, ErrKey.
func (k Key[T]) Set(v T) error {
	t := Current()
	if t == nil {
		return ErrNotThread
	}
	return k.SetIn(&t.Storage, v)
}

// SetIn sets k's value in s, the storage of what the caller is.
//
// Errors: ErrKey.
func (k Key[T]) SetIn(s *Storage, v T) error {
	if k.tag == 0 || keys.table[k.id].tag.Load() != k.tag {
		return ErrKey
	}
	// Copied as bytes: an assignment of pointers would ask for a write barrier,
	// which off-heap memory does not need and a thread does not have.
	size := unsafe.Sizeof(v)
	copy(unsafe.Slice((*byte)(s.value(k.at)), size), unsafe.Slice((*byte)(unsafe.Pointer(&v)), size))
	if s.area[k.at] != k.tag {
		s.listed(k.id) // first: a stack that runs out here leaves no value that nobody unsets
		s.area[k.at] = k.tag
	}
	return nil
}

func (s *Storage) value(at uint16) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(&s.area), (uintptr(at)+1)*wordSize)
}

// listed enters a key in order: at the end or, while destructors run, after
// those that they have set before. An entry that a deleted key of the same
// number has left is replaced, so order never overflows.
func (s *Storage) listed(id uint8) {
	n := 0
	for i, o := range s.order[:s.nset] {
		if o != id {
			s.order[n] = o
			n++
		} else if i < s.late {
			s.late--
		}
	}
	at := n
	if s.pass > 0 {
		at = s.late
		s.late++
		copy(s.order[at+1:n+1], s.order[at:n])
	}
	s.order[at] = id
	s.nset = n + 1
}

// RunDestructors ends s, the storage of what the caller is: it unsets every
// key, the one set last first, and calls its destructor. Keys that destructors
// set are unset in a further pass; after DestructorPasses passes they are
// dropped. Called from a destructor, it goes on where the call that runs it
// stands.
func (s *Storage) RunDestructors() {
	stale := false
	for s.nset > 0 {
		if s.pass == 0 || s.nset == s.late {
			s.pass++
			s.late = 0
		}
		s.nset--
		e := &keys.table[s.order[s.nset]]
		tag := e.tag.Load()
		at, destructor := uint16(e.at.Load()), atomic.LoadPointer(&e.destructor)
		if tag == 0 || s.area[at] != tag || e.tag.Load() != tag {
			stale = true
			continue
		}
		s.area[at] = 0
		if destructor != nil && s.pass <= DestructorPasses {
			(*(*func(unsafe.Pointer))(unsafe.Pointer(&destructor)))(s.value(at))
		}
	}
	s.pass, s.late = 0, 0
	if stale {
		// Deleted keys do not say where their values are. The next thread in
		// this memory must not find them.
		clear(s.area[:])
	}
}

// Reset unsets every key of s, the storage of one that is gone, without
// destructors: it may have ended without running them.
func (s *Storage) Reset() {
	if s.nset > 0 || s.pass > 0 {
		s.nset, s.pass, s.late = 0, 0, 0
		clear(s.area[:])
	}
}
