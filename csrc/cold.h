/* The functions that mypyc's code calls only after a failure. Included before each of its files, so that the compiler
   moves the code that calls them (a third of the code) away from the code that every request runs through.

   The declarations name no parameters, because mypyc may change them; in C23 they would declare functions without
   parameters. */

#if __STDC_VERSION__ <= 201710L
void CPy_AddTraceback() __attribute__((cold));
void CPy_AttributeError() __attribute__((cold));
void CPy_TypeError() __attribute__((cold));
void CPy_TypeErrorTraceback() __attribute__((cold));
#endif
