// Reads a log of ours with the reference implementation of notes and tiles, golang.org/x/mod/sumdb,
// and nothing of our own: the checkpoint's signature, tiles, inclusion and consistency proofs.
//
// Run as: reader FOLDER < what.json; says how many proofs it accepted, or what it does not accept.
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type included struct {
	Index int64
	Entry string
	Proof []string
}

type consistent struct {
	Old   int64
	Root  string
	Proof []string
}

type input struct {
	Vkey        string
	Checkpoint  string
	Entries     []included
	Consistency []consistent
}

// tiles reads them off a folder; the library puts the tile's height into the path, C2SP does not.
type tiles string

func (folder tiles) Height() int { return 8 }

func (folder tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(folder), path))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (folder tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "not accepted:", err)
		os.Exit(1)
	}
}

func hash(text string) (made tlog.Hash) {
	data, err := base64.StdEncoding.DecodeString(text)
	check(err)
	if copy(made[:], data) != len(made) || len(data) != len(made) {
		check(fmt.Errorf("%q is no hash", text))
	}
	return made
}

func hashes(texts []string) (made []tlog.Hash) {
	for _, text := range texts {
		made = append(made, hash(text))
	}
	return made
}

func main() {
	var in input
	check(json.NewDecoder(os.Stdin).Decode(&in))
	verifier, err := note.NewVerifier(in.Vkey)
	check(err)
	opened, err := note.Open([]byte(in.Checkpoint), note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root := hash(lines[2])
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tiles(os.Args[1]))
	for _, one := range in.Entries {
		proof := tlog.RecordProof(hashes(one.Proof))
		check(tlog.CheckRecord(proof, size, root, one.Index, tlog.RecordHash([]byte(one.Entry))))
		own, err := tlog.ProveRecord(size, one.Index, reader)
		check(err)
		if !reflect.DeepEqual(proof, own) {
			check(fmt.Errorf("the tiles give another proof of entry %d", one.Index))
		}
	}
	for _, one := range in.Consistency {
		check(tlog.CheckTree(tlog.TreeProof(hashes(one.Proof)), size, root, one.Old, hash(one.Root)))
	}
	fmt.Println(len(in.Entries), len(in.Consistency))
}
