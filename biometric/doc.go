// Package biometric is what is the same of every finger and eye, whatever took
// it: which part of the body it is, how a comparison ended, and templates that
// no log shows. There is no image here, and no score: a scanner judges, and
// says how it judged.
package biometric
