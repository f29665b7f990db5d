package main

// Token type 0xDA7A on circl's partially blind RSA (draft-amjad-cfrg-partially-blind-rsa): the framing of the
// public-metadata and extensions drafts, from their texts. Its keys are given, since safe primes take long to find.

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"

	"github.com/cloudflare/circl/blindsign/blindrsa/partiallyblindrsa"
)

const partiallyBlindRSA = 0xda7a

type metadataPending struct {
	input []byte
	state partiallyblindrsa.VerifierState
}

var metadataPendings = map[int]metadataPending{}

func runWithMetadata(c command) (answer, error) {
	switch c.Op {
	case "metadata-request":
		return metadataRequest(c)
	case "metadata-finish":
		return metadataFinish(c)
	case "metadata-issue":
		return metadataIssue(c)
	case "metadata-verify":
		return metadataVerify(c)
	}
	return answer{}, errors.New("unknown op")
}

// TokenRequest, then Extensions as they came.
func metadataRequest(c command) (answer, error) {
	key, err := parseTokenKey(c.TokenKey)
	if err != nil {
		return answer{}, err
	}
	c.TokenType = partiallyBlindRSA
	input := tokenInput(c)
	blinded, state, err := partiallyblindrsa.NewVerifier(key, crypto.SHA384).Blind(rand.Reader, input, c.Metadata)
	if err != nil {
		return answer{}, err
	}
	next++
	metadataPendings[next] = metadataPending{input, state}
	body := append(metadataHead(c.TokenKey), blinded...)
	return answer{ID: next, Body: append(body, c.Metadata...)}, nil
}

func metadataFinish(c command) (answer, error) {
	p, ok := metadataPendings[c.ID]
	if !ok {
		return answer{}, errors.New("no such request")
	}
	signature, err := p.state.Finalize(c.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{Tokens: [][]byte{append(p.input, signature...)}}, nil
}

func metadataIssue(c command) (answer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(c.Key)
	if err != nil {
		return answer{}, err
	}
	key, ok := parsed.(*rsa.PrivateKey)
	head := metadataHead(c.TokenKey)
	if !ok || !bytes.HasPrefix(c.Body, head) || len(c.Body) < len(head)+256 {
		return answer{}, errors.New("another type or key")
	}
	signer, err := partiallyblindrsa.NewSigner(key, crypto.SHA384)
	if err != nil {
		return answer{}, err
	}
	message := c.Body[len(head):]
	signature, err := signer.BlindSign(message[:256], message[256:])
	return answer{Body: signature}, err
}

func metadataVerify(c command) (answer, error) {
	key, err := parseTokenKey(c.TokenKey)
	if err != nil || len(c.Body) < 98 {
		return answer{}, errors.New("no key, or no token")
	}
	verifier := partiallyblindrsa.NewVerifier(key, crypto.SHA384)
	return answer{Valid: verifier.Verify(c.Body[:98], c.Metadata, c.Body[98:]) == nil}, nil
}

func metadataHead(tokenKey []byte) []byte {
	head := binary.BigEndian.AppendUint16(nil, partiallyBlindRSA)
	return append(head, tokenKeyID(tokenKey)[31])
}
